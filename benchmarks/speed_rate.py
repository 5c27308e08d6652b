"""Why our files are smaller than CompressAI's, with the same weights: what its symbols cost in its tables and in ours.

    python -m benchmarks.speed_rate [--pictures 2] [--json]

CompressAI's `compress` runs as in `cotam bench speed`; its symbols and scales are taken where they are coded. A scale
chooses one of 64 tables, which are the same for both but for their ends: CompressAI takes the next larger scale, we the
nearest. What lies beyond a table's end is written in digits of four bits, and CompressAI's tables end earlier. Each of
its eleven strings ends with a coder's state.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchmarks.speed import crops
from benchmarks.speed_sides import QUALITIES, compressai_ways, prepare
from components import config
from components.environment import be_quiet, use_threads
from components.progress import track

if TYPE_CHECKING:
    from benchmarks.compressai_elic import CompressaiElic
    from components.codec.codec import Codec


class Spy:
    """Keeps what goes through one of CompressAI's Gaussian conditionals."""

    def __init__(self, conditional):
        self.conditional, self.scales, self.symbols, self.rows = conditional, [], [], []
        self._build, self._compress = conditional.build_indexes, conditional.compress
        conditional.build_indexes, conditional.compress = self.build_indexes, self.compress

    def build_indexes(self, scales):
        self.scales.append(scales.flatten().numpy().copy())
        return self._build(scales)

    def compress(self, inputs, indexes, means=None):
        self.symbols.append(self.conditional.quantize(inputs, "symbols", means).flatten().numpy())
        self.rows.append(indexes.flatten().numpy())
        return self._compress(inputs, indexes, means=means)

    def take(self) -> tuple[NDArray, NDArray, NDArray]:
        """Symbols, their rows and scales since the last call."""
        found = tuple(map(np.concatenate, (self.symbols, self.rows, self.scales)))
        self.scales, self.symbols, self.rows = [], [], []
        return found


def spies(model: "CompressaiElic") -> list[Spy]:
    """One for each group of channels."""
    groups = model.latent_codec.latent_codec["y"].latent_codec.values()
    return [Spy(group.latent_codec["y"].gaussian_conditional) for group in groups]


def in_their_tables(spy: Spy, symbols: NDArray, rows: NDArray) -> tuple[float, float]:
    """Bits of the table's symbols, and of the digits of those beyond its end."""
    tables, lengths, offsets = (
        getattr(spy.conditional, name).numpy() for name in ("quantized_cdf", "cdf_length", "offset")
    )
    values, most = symbols.astype(np.int64) - offsets[rows], lengths[rows] - 2
    beyond = (values < 0) | (values >= most)
    places = np.where(beyond, most, values)
    bits = -np.log2((tables[rows, places + 1] - tables[rows, places]) / (1 << 16)).sum()
    raw = np.where(values < 0, -2 * values - 1, 2 * (values - most))[beyond]
    return float(bits), float(sum(4 * (1 + -(-int(value).bit_length() // 4)) for value in raw))


def in_our_tables(codec: "Codec", symbols: NDArray, scales: NDArray) -> float:
    """Bits, of all but what is beyond a table's end, with the row of the nearest scale."""
    from components.codec.exact_elic import ROWS
    from components.codec.tables import SCALES

    ours = codec.wire.tables
    steps = (ROWS - 1) * np.log(np.maximum(scales, SCALES[0]) / SCALES[0]) / np.log(SCALES[-1] / SCALES[0])
    nearest, bits = np.rint(steps).astype(int).clip(0, ROWS - 1), 0.0
    for row in np.unique(nearest):
        table, offset = np.array(ours.rows[row + ours.first]), ours.offsets[row + ours.first]
        places = (symbols[nearest == row].astype(int) - offset).clip(0, len(table) - 3)
        bits -= np.log2((table[places + 1] - table[places]) / (1 << 16)).sum()
    return float(bits)


def explain(codec: "Codec", model: "CompressaiElic", pictures: list[NDArray], quality: int) -> dict:
    """Bytes of all pictures together."""
    encode, _, size = compressai_ways(model)
    watched = spies(model)
    names = ("compressai", "ours", "hyper", "their_tables", "their_digits", "our_tables")
    total = dict.fromkeys(names, 0.0)
    for picture in track(pictures, f"Quality {quality}"):
        found = encode(picture)
        total["compressai"] += size(found)
        total["hyper"] += len(found["strings"][-1][0])
        total["ours"] += len(codec.encode([picture], quality)[0])
        for spy in watched:
            symbols, rows, scales = spy.take()
            bits, digits = in_their_tables(spy, symbols, rows)
            total["their_tables"] += bits / 8
            total["their_digits"] += digits / 8
            total["our_tables"] += in_our_tables(codec, symbols, scales) / 8
    parts = total["hyper"] + total["their_tables"] + total["their_digits"]
    return total | {"their_states": total["compressai"] - parts}


def main() -> int:
    """Measure and report."""
    from components.evaluation.pictures import photographs

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codec", default=config.load().codec["elic"].weights, help="(default: params.yaml's)")
    parser.add_argument("--pictures", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="report as JSON")
    args = parser.parse_args()
    be_quiet()
    use_threads(1)
    pictures = crops(list(photographs().values())[: args.pictures])
    with tempfile.TemporaryDirectory() as folder:
        codec, _, models = prepare(Path(folder), args.codec, "full", pictures[0])
        found = {str(q): explain(codec, models[q], pictures, q) for q in QUALITIES}
    if args.json:
        print(json.dumps(found, indent=2))
        return 0
    for quality, row in found.items():
        change = 100 * (row["ours"] / row["compressai"] - 1)
        print(f"quality {quality}: {row['compressai']:.0f} bytes -> ours {row['ours']:.0f} ({change:+.2f} %)")
        print(f"  latent in its tables {row['their_tables']:.0f}, in ours, nearest scale {row['our_tables']:.0f}")
        print(f"  its digits beyond the tables {row['their_digits']:.0f}, its coders' states", end=" ")
        print(f"{row['their_states']:.0f}, its hyper latent {row['hyper']:.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
