"""What the guidance map costs in the stream, against the 128 bits that the paper spends on 8 x 8 cells.

    cotam bench map [--json]          or: python benchmarks/map.py --images 500

Maps of scenes of both styles, from a split that no frequency of the format was counted on, and of photographs. The
worst that any map can cost is printed beside them.
"""

import argparse
import json
import sys
from collections.abc import Sequence

import numpy as np

from components import config
from components.codec import level_map
from components.codec.guidance import guide
from components.environment import be_quiet, use_threads
from components.evaluation.pictures import photographs
from components.progress import track
from components.scenes import render, sample_scene
from components.scenes.world import STYLES
from components.vision import load_tower

GRIDS = (4, 8)
PAPER_BITS_PER_CELL = 2
AT_ONCE = 32


def costs(tower, pictures: Sequence[np.ndarray], grid: int, settings: config.Guidance) -> np.ndarray:
    """Bits of every picture's map."""
    bits = []
    for start in range(0, len(pictures), AT_ONCE):
        levels = guide(tower, pictures[start : start + AT_ONCE], grid, settings.k, settings.layers)
        bits += [level_map.cost_bits(one) for one in levels]
    return np.array(bits)


def measure(images: int, settings: config.Guidance) -> dict:
    """Mean, 95th percentile and largest cost in bits, by grid and kind of picture."""
    tower = load_tower(settings.tower)
    kinds = {
        f"scenes, {style} style": [render(sample_scene(seed, "test", style)) for seed in range(images)]
        for style in track(STYLES, "drawing")
    }
    kinds["photographs"] = list(photographs().values())
    found: dict[str, dict] = {}
    worst_cell = 16 - np.log2(np.min(level_map.FREQUENCIES))
    for grid in GRIDS:
        cells = grid * grid
        rows = {"paper": PAPER_BITS_PER_CELL * cells, "worst": round(float(worst_cell * cells), 1)}
        for kind, pictures in kinds.items():
            bits = costs(tower, pictures, grid, settings)
            spread = {"mean": bits.mean(), "p95": np.percentile(bits, 95), "max": bits.max()}
            rows[kind] = {"maps": len(bits)} | {name: round(float(value), 1) for name, value in spread.items()}
        found[f"{grid} x {grid}"] = rows
    return found


def main() -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200, help="scenes of each style")
    parser.add_argument("--json", action="store_true", help="report as JSON")
    args = parser.parse_args()
    be_quiet()
    use_threads(1)
    result = measure(args.images, config.load().guidance)
    if args.json:
        print(json.dumps(result, indent=2))
        return 0
    for grid, rows in result.items():
        print(f"{grid} cells: the paper {rows.pop('paper')} bits; never more than {rows.pop('worst'):.0f}")
        for kind, bits in rows.items():
            print(f"  {kind:24} mean {bits['mean']:5.1f}, 95 % below {bits['p95']:5.1f}, largest {bits['max']:5.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
