"""Count how often each level follows its neighbours in real guidance maps: the format's frequencies of the level map.

    python -m pipelines.pretrain.count_levels

What it prints is `FREQUENCIES` in components/codec/level_map.py, a constant of the format: a tower that is trained
anew changes nothing there. Counted are maps of 4 x 4 and of 8 x 8 cells, of scenes in the style of training and, for
what photographs are like, of dead leaves (components/codec/natural.py). Scenes of the benchmarks and photographs are
never seen; `cotam bench map` measures on them.
"""

import argparse

import numpy as np
from numpy.typing import NDArray

from components.codec import level_map
from components.codec.guidance import guide
from components.codec.natural import natural_images
from components.environment import be_quiet, use_threads
from components.progress import track
from components.scenes import render, sample_scene
from components.vision import load_tower

GRIDS = (4, 8)
TOTAL = 1 << 16
LEAST = TOTAL // 64  # no level costs more than six bits, however unlikely
PRIOR = 8  # cells with the overall shares of the levels, which every context is given beside its own
AT_ONCE = 32


def count(levels_BRC: NDArray[np.int8]) -> NDArray[np.int64]:
    """How often each level occurs in each context, (contexts, 3)."""
    counts = np.zeros((level_map.CONTEXTS, 3), np.int64)
    for levels in levels_BRC:
        np.add.at(counts, (level_map.contexts(levels), levels.reshape(-1).astype(int) + 1), 1)
    return counts


def frequencies(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows that sum to 65536, none below `LEAST`; what rounding leaves goes to the likeliest level."""
    overall = counts.sum(0) / counts.sum()
    chances = counts + PRIOR * overall
    chances /= chances.sum(1, keepdims=True)
    rows = LEAST + np.floor(chances * (TOTAL - 3 * LEAST)).astype(np.int64)
    rows[np.arange(len(rows)), rows.argmax(1)] += TOTAL - rows.sum(1)
    return rows


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tower", default="pretrained/clip/micro")
    parser.add_argument("--images", type=int, default=1000, help="scenes, and as many dead leaves")
    args = parser.parse_args()
    be_quiet()
    use_threads(1)
    tower = load_tower(args.tower)
    counts = np.zeros((level_map.CONTEXTS, 3), np.int64)
    for start in track(range(0, args.images, AT_ONCE), "counting"):
        seeds = range(start, min(start + AT_ONCE, args.images))
        scenes = [render(sample_scene(seed, "train", "train")) for seed in seeds]
        leaves = list(natural_images(len(scenes), seed=100_000 + start))
        for grid in GRIDS:
            counts += count(np.stack(guide(tower, scenes, grid))) + count(np.stack(guide(tower, leaves, grid)))
    for row in frequencies(counts).tolist():
        print(f"    ({', '.join(map(str, row))}),")


if __name__ == "__main__":
    main()
