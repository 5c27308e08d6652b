"""Streams written in one way and read in another: how many decode to another latent, and what exactness costs in rate.

    cotam bench exactness [--json]     or: python -m benchmarks.exactness --scenes 40 --device cuda

Writer and reader differ in threads, oneDNN, batch and order, precision of the transforms, the way in which integers are
summed, or (with --device cuda) in the machine's half that computes. The yardstick is the same trained networks with an
entropy model in float32, as learned codecs usually have it (`float_wire.py`); the rates are held against float64.
"""

import argparse
import contextlib
import json
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from benchmarks.float_wire import as_float
from components import config
from components.codec import products
from components.codec.codec import Codec
from components.codec.config import STRIDE
from components.codec.wire import Quantizer, Reader
from components.environment import be_quiet
from components.evaluation.pictures import photographs
from components.progress import track
from components.scenes import render, sample_scene

STYLES = ("bench", "train")


@dataclass(frozen=True)
class Way:
    """How one side of the wire computes.

    Attributes:
        threads: of torch.
        onednn: whether convolutions and products may use it.
        batch: pictures of one size that go through the entropy model together.
        backwards: the last picture first.
        bfloat16: residual branches of the transforms in it.
        bytes: int8 products where the processor has them; else float64.
        device: "cpu" or "cuda".
    """

    threads: int = 1
    onednn: bool = True
    batch: int = 16
    backwards: bool = False
    bfloat16: bool = False
    bytes: bool = True
    device: str = "cpu"


PLAIN = Way()
OTHER = Way(2, onednn=False, batch=1, backwards=True, bytes=False)
CASES = {
    "1 thread -> 2 threads": (PLAIN, replace(PLAIN, threads=2)),
    "oneDNN -> without": (PLAIN, replace(PLAIN, onednn=False)),
    "batch of 16 -> one by one, backwards": (PLAIN, replace(PLAIN, batch=1, backwards=True)),
    "bfloat16 transforms -> float32": (replace(PLAIN, bfloat16=True), replace(PLAIN, threads=2, batch=5)),
    "float64 sums -> int8 products": (replace(PLAIN, bytes=False), PLAIN),
    "all of it at once": (replace(PLAIN, bfloat16=True), OTHER),
}


@dataclass(eq=False)
class Picture:
    """An image whose sides are multiples of 16, the quality of its places, and what was made of it."""

    name: str
    pixels: np.ndarray
    map_HW: np.ndarray
    payload: bytes = field(default=b"", repr=False)
    latent: bytes = field(default=b"", repr=False)  # as its writer decoded it


def pictures(scenes: int, qualities: int) -> list[Picture]:
    """Scenes of both styles at every quality, and photographs; on a third, qualities change with the place."""
    rng = np.random.default_rng(0)
    found = []
    for style in STYLES:
        for seed in range(scenes // 2):
            image = render(sample_scene(seed, "validation", style))
            found += [(f"scenes, {style}", image, quality) for quality in range(qualities)]
    photos = list(photographs().values())
    found += [("photographs", image, k % qualities) for k, image in enumerate(photos)]
    return [_picture(k, *one, qualities, rng) for k, one in enumerate(found)]


def _picture(k: int, name: str, image: np.ndarray, quality: int, qualities: int, rng: np.random.Generator) -> Picture:
    height, width = (side // STRIDE for side in image.shape[:2])
    map_HW = np.full((height, width), quality, np.int64)
    if k % 3 == 2:
        map_HW = np.clip(map_HW + rng.integers(-1, 2, map_HW.shape), 0, qualities - 1)
    return Picture(name, image[: STRIDE * height, : STRIDE * width], map_HW)


@contextlib.contextmanager
def computing(way: Way) -> Iterator[None]:
    """Compute in this way inside."""
    threads, multiplies = torch.get_num_threads(), products.multiplies_bytes
    torch.set_num_threads(way.threads)
    if not way.bytes:
        products.multiplies_bytes = lambda: False
    try:
        with torch.backends.mkldnn.flags(enabled=way.onednn), torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(threads)
        products.multiplies_bytes = multiplies


def _batches(items: Sequence[Picture], way: Way) -> Iterator[list[Picture]]:
    groups: dict[tuple, list[Picture]] = {}
    for item in items[::-1] if way.backwards else items:
        groups.setdefault(item.pixels.shape, []).append(item)
    for group in groups.values():
        for start in range(0, len(group), way.batch):
            yield group[start : start + way.batch]


def _maps(batch: Sequence[Picture], way: Way) -> Tensor:
    return torch.from_numpy(np.stack([item.map_HW for item in batch])).to(way.device)


def write(codec: Codec, items: Sequence[Picture], way: Way) -> None:
    """Fill in every picture's payload and latent."""
    with computing(way):
        codec.model.fast(way.bfloat16)
        for batch in _batches(items, way):
            maps_BHW = _maps(batch, way)
            latents = []
            for item, map_1HW in zip(batch, maps_BHW.split(1), strict=True):
                x_3HW = torch.from_numpy(item.pixels.copy()).permute(2, 0, 1).float() / 255
                latents.append(codec.model.analyse(x_3HW[None].to(way.device), map_1HW))
            source = Quantizer(codec.wire.tables)
            _, decoded = codec.wire.walk(source, maps_BHW, torch.cat(latents))
            for item, payload, latent in zip(batch, source.streams([None] * len(batch)), decoded, strict=True):
                item.payload, item.latent = payload, latent
        codec.model.fast(False)


def read(codec: Codec, items: Sequence[Picture], way: Way) -> int:
    """How many decode to another latent than their writer's."""
    different = 0
    with computing(way):
        for batch in _batches(items, way):
            maps_BHW = _maps(batch, way)
            count = codec.wire.symbol_count(tuple(maps_BHW.shape[1:]))
            reader = Reader([item.payload for item in batch], count, None, codec.wire.tables)
            reader.levels()
            _, decoded = codec.wire.walk(reader, maps_BHW)
            different += sum(item.latent != latent for item, latent in zip(batch, decoded, strict=True))
    return different


def measure(scenes: int, codec_name: str, device: str) -> dict:
    """Everything that is reported.

    Args:
        scenes: how many, at all qualities and in every case.
        codec_name: as `Codec.from_pretrained` takes it.
        device: "cuda" adds cases between CPU and GPU.
    """
    cases = dict(CASES)
    if device != "cpu":
        there = replace(PLAIN, device=device)
        cases |= {f"CPU -> {device}": (PLAIN, there), f"{device} -> CPU": (there, OTHER)}
    codecs = {where: Codec.from_pretrained(codec_name, device=where) for where in {"cpu", device}}
    floats = {where: as_float(codec, torch.float32) for where, codec in codecs.items()}
    items = pictures(scenes, codecs["cpu"].config.qualities)
    found = {}
    for name, (writer, reader) in track(list(cases.items()), "Writing and reading"):
        found[name] = {"streams": len(items)}
        for kind, wires in (("exact", codecs), ("float32", floats)):
            write(wires[writer.device], items, writer)
            found[name][f"{kind}_different"] = read(wires[reader.device], items, reader)
    return {
        "codec": codecs["cpu"].model_id,
        "machine": platform.machine(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "int8_products": products.multiplies_bytes(),
        "cases": found,
        "streams": len(items) * len(cases),
        "exact_different": sum(case["exact_different"] for case in found.values()),
        "float32_different": sum(case["float32_different"] for case in found.values()),
        "rate": rates(codecs["cpu"], items),
    }


def rates(codec: Codec, items: Sequence[Picture]) -> dict:
    """Bytes of all payloads, exact and with float64, and by how many per cent the exact ones are longer."""
    sizes = {}
    for kind, wire in (("exact", codec), ("float64", as_float(codec, torch.float64))):
        write(wire, items, PLAIN)
        sizes[kind] = [len(item.payload) for item in items]
    lowest = [int(item.map_HW.min()) == int(item.map_HW.max()) == 0 for item in items]
    chosen = {name: [item.name == name for item in items] for name in dict.fromkeys(item.name for item in items)}
    chosen |= {"quality 0 alone": lowest, "all": [True] * len(items)}
    result = {}
    for name, mask in chosen.items():
        ours, theirs = (int(np.array(sizes[kind])[mask].sum()) for kind in ("exact", "float64"))
        cost = round(100 * (ours / theirs - 1), 3)
        result[name] = {"pictures": sum(mask), "exact_bytes": ours, "float64_bytes": theirs, "cost_percent": cost}
    return result


def main() -> int:
    """Measure and report."""
    settings = config.load()
    codec = settings.codec[settings.codecs[0]]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codec", metavar="PATH-OR-NAME", default=codec.weights, help="(default: params.yaml's first)")
    parser.add_argument("--scenes", type=int, default=40, help="in every case, each at all ten qualities")
    parser.add_argument("--device", default="cpu", help="cuda: between CPU and GPU, too")
    parser.add_argument("--json", action="store_true", help="report as JSON")
    args = parser.parse_args()
    be_quiet()
    result = measure(args.scenes, args.codec, args.device)
    if args.json:
        print(json.dumps(result, indent=2))
        return 0
    print(f"codec {result['codec']}, torch {result['torch']}, {result['device']}")
    print(f"\n{'written -> read':40}streams   differ: exact   float32")
    for name, case in result["cases"].items():
        print(f"{name:40}{case['streams']:7d}{case['exact_different']:16d}{case['float32_different']:10d}")
    print(f"{'in all':40}{result['streams']:7d}{result['exact_different']:16d}{result['float32_different']:10d}")
    print("\nrate against an entropy model in float64, headers apart")
    for name, rate in result["rate"].items():
        print(f"{name:20}{rate['pictures']:5d} pictures {rate['cost_percent']:+.3f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
