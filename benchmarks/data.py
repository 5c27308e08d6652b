"""How fast pictures come out of shards and go into them, against single files and against webdataset's own loops.

    cotam bench data [--json]          or: python benchmarks/data.py --images 2000 --repeats 11

Reading: every picture once, decoded, by one process. From shards and from files in the shuffled order of an epoch; by
webdataset (`WebDataset(...).shuffle(1000).decode("pilrgb")`) in the order of its buffer, which cannot resume in the
middle of an epoch. Writing: `shard_folder`, which also decodes and checks every picture, hashes and syncs, against a
loop over `webdataset.ShardWriter`, which copies bytes.

One repeat does all of them, in turn forwards and backwards, so that what else the machine does strikes all; what counts
is the ratio within repeats. Everything lies in the page cache: on a disk or a network, where a shard is one large file
instead of hundreds of small ones, shards gain more. The hash of every shard, which is taken once per process, is timed
apart.
"""

import argparse
import itertools
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
    """Draw `images` scenes into `folder`, and read and write them `repeats` times in every way.

    Returns:
        images per second of each way (median), the ratio of ours to each other one (median, lowest, highest, over the
        repeats), and the seconds that checking all hashes takes.
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
    reading = _rates(_reading(reader, sorted(files.iterdir())), images, repeats, "Reading")
    writing = _rates(_writing(files, folder / "written"), images, repeats, "Writing")
    return {
        "images": images,
        "repeats": repeats,
        "megabytes": round(manifest["bytes"] / 1e6, 1),
        "reading": _summary(reading, "shards"),
        "writing": _summary(writing, "cotam shard"),
        "hashing_seconds": round(hashing, 3),
    }


def _reading(reader: ShardReader, paths: list[Path]) -> dict[str, Callable[[], object]]:
    import webdataset

    order = [int(index) for index in reader.order(0)]
    tars = [str(reader.folder / entry["file"]) for entry in reader.manifest["shards"]]

    def from_shards() -> None:
        for index in order:
            reader.image(index)

    def from_files() -> None:
        for index in order:
            with Image.open(paths[index]) as image:
                image.convert("RGB")

    def from_webdataset() -> None:
        samples = webdataset.WebDataset(tars, shardshuffle=False).shuffle(1000).decode("pilrgb").to_tuple("png;jpg")
        read = sum(1 for _ in samples)
        assert read == len(order), f"webdataset gave {read} of {len(order)} pictures"

    return {"shards": from_shards, "files": from_files, "webdataset": from_webdataset}


def _writing(files: Path, out: Path) -> dict[str, Callable[[], object]]:
    import webdataset

    fresh = (out / str(number) for number in itertools.count())

    def by_shard_writer() -> None:
        folder = next(fresh)
        folder.mkdir(parents=True)
        with webdataset.ShardWriter(str(folder / "%05d.tar"), maxcount=500, verbose=0) as sink:
            for number, path in enumerate(sorted(files.iterdir())):
                sink.write({"__key__": f"{number:09d}", "png": path.read_bytes()})

    return {"cotam shard": lambda: shard_folder(files, next(fresh)), "ShardWriter": by_shard_writer}


def _rates(ways: dict[str, Callable[[], object]], images: int, repeats: int, title: str) -> list[dict[str, float]]:
    """Images per second of every way, once per repeat."""
    found = []
    for repeat in track(range(repeats), title):
        names = list(ways) if repeat % 2 else list(ways)[::-1]
        found.append({name: images / _seconds(ways[name]) for name in names})
    return found


def _summary(rates: list[dict[str, float]], ours: str) -> dict:
    others = [name for name in rates[0] if name != ours]
    ratios = {name: [rate[ours] / rate[name] for rate in rates] for name in sorted(others)}
    return {
        "images_per_second": {name: round(statistics.median(one[name] for one in rates)) for name in sorted(rates[0])},
        "ratio_to": {
            name: {
                "median": round(statistics.median(values), 3),
                "lowest": round(min(values), 3),
                "highest": round(max(values), 3),
            }
            for name, values in ratios.items()
        },
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
    size = f"{result['megabytes']} MB, {result['repeats']} repeats"
    print(f"{result['images']} scenes of 128 x 128 pixels as PNG, {size}")
    for title, ours in (("reading", "shards"), ("writing", "cotam shard")):
        for name, rate in result[title]["images_per_second"].items():
            print(f"{title}  {name:12} {rate:6d} images/s")
        for name, ratio in result[title]["ratio_to"].items():
            spread = f"{ratio['lowest']:.2f} to {ratio['highest']:.2f} over the repeats"
            print(f"{title}  {ours} / {name}: {ratio['median']:.2f} ({spread})")
    print(f"hashing all shards, once per process: {result['hashing_seconds']:.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
