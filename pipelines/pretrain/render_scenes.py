"""Render the scenes that the shipped weights are trained on into one array on disk.

    python -m pipelines.pretrain.render_scenes data/pretrain/train.npy --style train --count 20000
    python -m pipelines.pretrain.render_scenes data/pretrain/train-256.npy --count 4000 --size 256 --detail 2
    python -m pipelines.pretrain.render_scenes data/pretrain/train-clips.npy --count 1500 --frames 16

Writes uint8 (count, size, size, 3); image i is the scene of seed `--first` + i. With --frames it is a clip, and the
array has an axis of frames behind the first.
A run that was stopped goes on where it was.
"""

import argparse
from pathlib import Path

import numpy as np

from components.progress import track
from components.scenes import render, sample_scene
from components.scenes.graph import NORMAL_SIZE
from components.scenes.moving import sample_clip


def render_array(
    path: Path,
    style: str,
    split: str,
    first: int,
    count: int,
    size: int = NORMAL_SIZE,
    detail: int = 1,
    frames: int = 0,
) -> None:
    """Fill `path` with scenes, or clips of so many `frames`; the array appears under its name when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, done = path.with_suffix(".part.npy"), path.with_suffix(".done")
    start = int(done.read_text()) if partial.exists() and done.exists() else 0
    shape = (count, *((frames,) if frames else ()), size, size, 3)
    images = np.lib.format.open_memmap(partial, mode="r+" if start else "w+", dtype=np.uint8, shape=shape)
    for index in track(range(start, count), f"{split} {'clips' if frames else 'scenes'} in {style} style"):
        if frames:
            images[index] = [render(frame) for frame in sample_clip(first + index, split, style, size).frames(frames)]
        else:
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
    parser.add_argument("--frames", type=int, default=0, help="of a clip; 0: scenes that stand still")
    args = parser.parse_args()
    render_array(args.path, args.style, args.split, args.first, args.count, args.size, args.detail, args.frames)


if __name__ == "__main__":
    main()
