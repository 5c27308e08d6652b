"""Which entropy coder is fastest on our own symbols and tables: CompressAI's, or the package `constriction`.

    cotam bench coder [--json]         or: python benchmarks/coder.py --rounds 9

Latents of photographs, as the codec codes them: all symbols are known when a stream is written, but it is read in parts
(the hyper latent, then every group's anchors and their other half), as what a part's rows are depends on the parts
before. Every way takes arrays and gives arrays; what that costs in conversions is counted. Ways:

- `compressai`: rANS with our integer tables; arrays become lists, and the tables are copied in every call.
- `constriction, tables`: rANS with the same chances; each part is sorted by row, and every row is one call.
- `constriction, gaussians`: rANS with the chances computed from each symbol's scale while it codes; one call a part.

Runs are in turns, in changing order; a ratio is taken within a round. `make setup` does not install the package; `pip
install constriction` does.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from compressai import ans
from numpy.typing import NDArray

from components import config
from components.codec import Codec
from components.codec.config import STRIDE
from components.codec.tables import SCALES, TABLES
from components.codec.wire import Quantizer
from components.environment import be_quiet, use_threads
from components.errors import CotamError
from components.evaluation.pictures import photographs
from components.progress import track

QUALITIES = (0, 4, 8)

Part = tuple[NDArray[np.int32], NDArray[np.int64]]
"""Symbols and their rows (steps of the table of scales)."""


@dataclass(frozen=True)
class Way:
    """A coder. `read` is given the rows of each part, and gives its symbols."""

    name: str
    write: Callable[[Sequence[Part]], bytes]
    read: Callable[[bytes, Sequence[NDArray[np.int64]]], list[NDArray[np.int32]]]


def compressai_way() -> Way:
    """As `components/codec/wire.py` does it."""
    first = TABLES.first

    def write(parts: Sequence[Part]) -> bytes:
        symbols, rows = (np.concatenate(part) for part in zip(*parts, strict=True))
        rows = rows + first
        return ans.RansEncoder().encode_with_indexes(symbols.tolist(), rows.tolist(), *TABLES.upto(int(rows.max())))

    def read(stream: bytes, parts: Sequence[NDArray[np.int64]]) -> list[NDArray[np.int32]]:
        coder = ans.RansDecoder()
        coder.set_stream(stream)
        found = []
        for rows in parts:
            tables = TABLES.upto(int(rows.max()) + first)
            found.append(np.array(coder.decode_stream((rows + first).tolist(), *tables), np.int32))
        return found

    return Way("compressai", write, read)


def table_way() -> Way:
    """Constriction with a model per row, made once."""
    stream_of = _constriction()
    models = [
        stream_of.model.Categorical(np.diff(row[:-1]).astype(np.float64), perfect=False)
        for row in TABLES.rows[TABLES.first :]
    ]

    def runs(rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[tuple[int, int, int]]]:
        """An order in which equal rows are together, and each row with its start and end."""
        order = np.argsort(rows, kind="stable")
        ends = np.cumsum([0, *np.bincount(rows, minlength=len(models))])
        return order, [(row, start, end) for row, (start, end) in enumerate(pairwise(ends)) if end > start]

    def write(parts: Sequence[Part]) -> bytes:
        coder = stream_of.stack.AnsCoder()
        for symbols, rows in reversed(parts):
            order, spans = runs(rows)
            shifted = (symbols + TABLES.bounds[rows].astype(np.int32))[order]
            for row, start, end in reversed(spans):
                coder.encode_reverse(shifted[start:end], models[row])
        return coder.get_compressed().tobytes()

    def read(stream: bytes, parts: Sequence[NDArray[np.int64]]) -> list[NDArray[np.int32]]:
        coder = stream_of.stack.AnsCoder(np.frombuffer(stream, np.uint32))
        found = []
        for rows in parts:
            order, spans = runs(rows)
            symbols = np.empty(len(rows), np.int32)
            for row, start, end in spans:
                symbols[order[start:end]] = coder.decode(models[row], end - start)
            found.append(symbols - TABLES.bounds[rows].astype(np.int32))
        return found

    return Way("constriction, tables", write, read)


def gaussian_way() -> Way:
    """Constriction with Gaussians whose chances it computes itself."""
    stream_of = _constriction()
    bound = int(TABLES.bounds.max())
    model = stream_of.model.QuantizedGaussian(-bound, bound)

    def write(parts: Sequence[Part]) -> bytes:
        coder = stream_of.stack.AnsCoder()
        symbols, rows = (np.concatenate(part) for part in zip(*parts, strict=True))
        coder.encode_reverse(symbols, model, np.zeros(len(rows)), SCALES[rows])
        return coder.get_compressed().tobytes()

    def read(stream: bytes, parts: Sequence[NDArray[np.int64]]) -> list[NDArray[np.int32]]:
        coder = stream_of.stack.AnsCoder(np.frombuffer(stream, np.uint32))
        return [coder.decode(model, np.zeros(len(rows)), SCALES[rows]) for rows in parts]

    return Way("constriction, gaussians", write, read)


def _constriction():
    try:
        from constriction import stream
    except ImportError:
        raise CotamError("The package constriction is not there; install it with: pip install constriction.") from None
    return stream


@torch.inference_mode()
def parts_of(codec: Codec, picture: NDArray[np.uint8], quality: int) -> list[Part]:
    """What is coded for a picture whose sides are multiples of 16, part by part."""
    height, width = codec.latent_size(*picture.shape[:2])
    map_1HW = torch.full((1, height, width), quality)
    x_13HW = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    source = Quantizer(codec.wire.tables)
    codec.wire.walk(source, map_1HW, codec.model.analyse(x_13HW, map_1HW))
    return [(symbols_N.astype(np.int32), rows_N) for [(symbols_N, rows_N)] in source.parts]


def compare(ways: Sequence[Way], parts: Sequence[Part], rounds: int) -> dict:
    """Milliseconds and bits of every way, and how much longer it takes than the first (median and quartiles).

    Raises:
        RuntimeError: a way does not give back what it was given.
    """
    rows = [part_rows for _, part_rows in parts]
    spent: dict[str, dict[str, list[float]]] = {way.name: {"write": [], "read": []} for way in ways}
    bits = {}
    for turn in range(rounds):
        shift = turn % len(ways)
        for way in (*ways[shift:], *ways[:shift]):
            start = time.perf_counter()
            stream = way.write(parts)
            middle = time.perf_counter()
            found = way.read(stream, rows)
            end = time.perf_counter()
            if not all(np.array_equal(a, b) for a, (b, _) in zip(found, parts, strict=True)):
                raise RuntimeError(f"{way.name} does not decode what it encoded")
            spent[way.name]["write"].append(middle - start)
            spent[way.name]["read"].append(end - middle)
            bits[way.name] = 8 * len(stream)
    base = spent[ways[0].name]
    return {
        "symbols": sum(map(len, rows)),
        "ways": {
            name: {"bits": bits[name]} | {what: _summary(times[what], base[what]) for what in times}
            for name, times in spent.items()
        },
    }


def _summary(seconds: list[float], base: list[float]) -> dict:
    ratios = [ours / theirs for ours, theirs in zip(seconds, base, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return {
        "ms": round(1000 * statistics.median(seconds), 2),
        "ratio": {
            "median": round(statistics.median(ratios), 3),
            "lower_quartile": round(low, 3),
            "upper_quartile": round(high, 3),
        },
    }


def measure(codec_name: str, rounds: int) -> dict:
    """The largest photograph at every quality of `QUALITIES`."""
    codec = Codec.from_pretrained(codec_name)
    ways = [compressai_way(), table_way(), gaussian_way()]
    picture = max(photographs().values(), key=lambda picture: picture.size)
    height, width = (side // STRIDE * STRIDE for side in picture.shape[:2])
    picture = np.array(picture[:height, :width])
    result = {"codec": codec.model_id, "size": [height, width], "rounds": rounds, "qualities": {}}
    for quality in track(QUALITIES, "Coding"):
        result["qualities"][quality] = compare(ways, parts_of(codec, picture, quality), rounds)
    return result


def _print(result: dict) -> None:
    height, width = result["size"]
    print(f"codec {result['codec']}, latent of a photograph of {width} x {height}, {result['rounds']} rounds")
    print("ratios to the first way: median and quartiles of the rounds")
    for quality, found in result["qualities"].items():
        print(f"\nquality {quality}: {found['symbols']} symbols")
        for name, way in found["ways"].items():
            cells = []
            for what in ("write", "read"):
                ratio = way[what]["ratio"]
                spread = f"{ratio['median']:.2f} ({ratio['lower_quartile']:.2f} to {ratio['upper_quartile']:.2f})"
                cells.append(f"{what} {way[what]['ms']:7.2f} ms, {spread:22}")
            print(f"{name:24} {way['bits']:8d} bits   {'   '.join(cells)}")


def main() -> int:
    """Measure and report."""
    settings = config.load()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    weights = settings.codec[settings.codecs[0]].weights
    parser.add_argument("--codec", metavar="PATH-OR-NAME", default=weights, help="(default: params.yaml's first)")
    parser.add_argument("--rounds", type=int, default=9, help="how often each way codes each latent")
    parser.add_argument("--json", action="store_true", help="report as JSON")
    args = parser.parse_args()
    be_quiet()
    use_threads(settings.threads)
    try:
        result = measure(args.codec, args.rounds)
    except CotamError as error:
        print(error, file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        _print(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
