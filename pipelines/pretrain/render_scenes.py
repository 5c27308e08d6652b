"""Render the scenes that the shipped weights are trained on into one array on disk.

    python -m pipelines.pretrain.render_scenes data/pretrain/train.npy --style train --count 20000
    python -m pipelines.pretrain.render_scenes data/pretrain/train-256.npy --count 4000 --size 256 --detail 2

Writes uint8 (count, size, size, 3); image i is the scene of seed `--first` + i.
A run that was stopped goes on where it was.
"""

import argparse
from pathlib import Path

import numpy as np

from components.progress import track
from components.scenes import render, sample_scene
from components.scenes.graph import NORMAL_SIZE


def render_array(
    path: Path, style: str, split: str, first: int, count: int, size: int = NORMAL_SIZE, detail: int = 1
) -> None:
    """Fill `path` with scenes; the array appears under its name when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, done = path.with_suffix(".part.npy"), path.with_suffix(".done")
    start = int(done.read_text()) if partial.exists() and done.exists() else 0
    images = np.lib.format.open_memmap(
        partial, mode="r+" if start else "w+", dtype=np.uint8, shape=(count, size, size, 3)
    )
    for index in track(range(start, count), f"{split} scenes in {style} style"):
        images[index] = render(sample_scene(first + index, split, style, size, detail))
        if index % 500 == 499:
            images.flush()
            done.write_text(str(index + 1))
    images.flush()
    done.unlink(missing_ok=True)
    partial.rename(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--style", default="train")
    parser.add_argument("--split", default="train")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--size", type=int, default=NORMAL_SIZE)
    parser.add_argument("--detail", type=int, default=1)
    args = parser.parse_args()
    render_array(args.path, args.style, args.split, args.first, args.count, args.size, args.detail)


if __name__ == "__main__":
    main()
