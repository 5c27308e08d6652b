"""How fast pictures come out of shards, against the same pictures as single files.

    cotam bench data [--json]          or: python benchmarks/data.py --images 2000 --repeats 11

Both read every picture in the shuffled order of an epoch and decode it. One repeat is a pair, in alternating order, so
that what else the machine does strikes both; what counts is the ratio within pairs. Everything lies in the page cache:
on a disk or a network, where a shard is one large file instead of hundreds of small ones, shards gain more. The hash
of every shard, which is taken once per process, is timed apart.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from components.data import ShardReader, shard_folder
from components.progress import track
from components.scenes import render, sample_scene


def measure(images: int, repeats: int, folder: Path) -> dict:
    """Draw `images` scenes into `folder` and read them `repeats` times in both ways.

    Returns:
        images per second of both (medians), the ratio shards / files (median, lowest, highest), and the seconds that
        checking all hashes takes.
    """
    files = folder / "files"
    files.mkdir()
    for seed in track(range(images), "Drawing"):
        Image.fromarray(render(sample_scene(seed, "train", "train"))).save(files / f"{seed:06d}.png", compress_level=1)
    manifest = shard_folder(files, folder / "shards")
    reader = ShardReader(folder / "shards")
    start = time.perf_counter()
    reader.verify()
    hashing = time.perf_counter() - start
    order = [int(index) for index in reader.order(0)]
    paths = sorted(files.iterdir())

    def from_shards() -> None:
        for index in order:
            reader.image(index)

    def from_files() -> None:
        for index in order:
            with Image.open(paths[index]) as image:
                image.convert("RGB")

    ways = (from_shards, from_files)
    pairs = []
    for repeat in track(range(repeats), "Reading"):
        seconds = {way: _seconds(way) for way in (ways if repeat % 2 else ways[::-1])}
        pairs.append((images / seconds[from_shards], images / seconds[from_files]))
    ratios = [shards / files for shards, files in pairs]
    return {
        "images": images,
        "repeats": repeats,
        "megabytes": round(manifest["bytes"] / 1e6, 1),
        "shards_images_per_second": round(statistics.median(shards for shards, _ in pairs)),
        "files_images_per_second": round(statistics.median(files for _, files in pairs)),
        "ratio": {
            "median": round(statistics.median(ratios), 3),
            "lowest": round(min(ratios), 3),
            "highest": round(max(ratios), 3),
        },
        "hashing_seconds": round(hashing, 3),
    }


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", action="store_true", help="report as JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(args.images, args.repeats, Path(folder))
    if args.json:
        print(json.dumps(result, indent=2))
        return 0
    ratio = result["ratio"]
    print(f"{result['images']} scenes of 128 x 128 pixels as PNG, {result['megabytes']} MB, {result['repeats']} pairs")
    print(f"shards  {result['shards_images_per_second']:6d} images/s")
    print(f"files   {result['files_images_per_second']:6d} images/s")
    print(f"ratio   {ratio['median']:6.2f}  ({ratio['lowest']:.2f} to {ratio['highest']:.2f} over the pairs)")
    print(f"hashing all shards, once per process: {result['hashing_seconds']:.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
