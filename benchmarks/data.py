"""How fast pictures come out of shards, on disk and on S3, and go into them, against webdataset's own loops.

    cotam bench data [--json]          or: python -m benchmarks.data --images 2000 --repeats 11

Reading: every picture once, decoded, by one process. Ours in the shuffled order of an epoch, which can be resumed
anywhere, and from S3 also in the order in the shards, as the feature store reads; single files in the same shuffled
order; webdataset (`WebDataset(...).shuffle(1000).decode("pilrgb")`, from S3 by its own curl) in the order of its
buffer, which cannot resume in the middle of an epoch. Beside them what a training takes: one process that fills the
feature store with the models of params.yaml, from pictures in memory. Writing: `shard_folder`, which also decodes and
checks every picture, hashes and syncs, against a loop over `webdataset.ShardWriter`, which copies bytes.

One repeat does all of them, in turn forwards and backwards, so that what else the machine does strikes all; what counts
is the ratio within repeats. The S3 store is OpenStack Swift on this machine, started for this, or the one that
AWS_ENDPOINT_URL names. All files lie in the page cache. The hash of every shard, which is taken once per process, is
timed apart.
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from benchmarks import data_s3
from benchmarks.data_s3 import Way
from components import config
from components.data import ShardReader, shard_folder
from components.progress import track
from components.scenes import render, sample_scene

SHARD_IMAGES = 100  # as many shards as a large data set has, not one

READING = (
    ("shards", "files"),
    ("shards", "webdataset"),
    ("shards", "training"),
    ("S3, in order", "training"),
    ("S3, shuffled", "training"),
    ("S3, in order", "S3, webdataset"),
    ("S3, shuffled", "S3, webdataset"),
    ("S3, shuffled, cache empty", "S3, webdataset"),
    ("S3, shuffled, cache full", "shards"),
)
WRITING = (("cotam shard", "ShardWriter"),)


def measure(images: int, repeats: int, settings: config.Settings, folder: Path) -> dict:
    """Draw `images` scenes into `folder`, and read and write them `repeats` times in every way.

    Args:
        settings: the models that a training takes pictures for.

    Returns:
        images per second of each way and the ratios of some of them (median, lowest, highest, over the repeats), and
        the seconds that checking all hashes takes.
    """
    files = folder / "files"
    files.mkdir()
    for seed in track(range(images), "Drawing"):
        Image.fromarray(render(sample_scene(seed, "train", "train"))).save(files / f"{seed:06d}.png", compress_level=1)
    manifest = shard_folder(files, folder / "shards", shard_images=SHARD_IMAGES)
    reader = ShardReader(folder / "shards")
    start = time.perf_counter()
    reader.verify()
    hashing = time.perf_counter() - start
    with data_s3.store(folder / "store") as url:
        ways = _reading(reader, sorted(files.iterdir())) | data_s3.ways(folder / "shards", url, folder)
        ways["training"] = data_s3.training(settings, folder / "features")
        reading = _rates(ways, repeats, "Reading", images)
    writing = _rates(_writing(files, folder / "written"), repeats, "Writing", images)
    return {
        "images": images,
        "repeats": repeats,
        "megabytes": round(manifest["bytes"] / 1e6, 1),
        "shards": len(manifest["shards"]),
        "reading": _summary(reading, READING),
        "writing": _summary(writing, WRITING),
        "hashing_seconds": round(hashing, 3),
    }


def _reading(reader: ShardReader, paths: list[Path]) -> dict[str, Way]:
    order = [int(index) for index in reader.order(0)]
    tars = [str(reader.folder / entry["file"]) for entry in reader.manifest["shards"]]

    def from_files() -> int:
        for index in order:
            with Image.open(paths[index]) as image:
                image.convert("RGB")
        return len(order)

    return {
        "shards": lambda: data_s3.count(reader.images(0)),
        "files": from_files,
        "webdataset": lambda: data_s3.by_webdataset(tars),
    }


def _writing(files: Path, out: Path) -> dict[str, Way]:
    import webdataset

    fresh = (out / str(number) for number in itertools.count())

    def by_shard_writer() -> int:
        folder = next(fresh)
        folder.mkdir(parents=True)
        with webdataset.ShardWriter(str(folder / "%05d.tar"), maxcount=500, verbose=0) as sink:
            for number, path in enumerate(sorted(files.iterdir())):
                sink.write({"__key__": f"{number:09d}", "png": path.read_bytes()})
        return number + 1

    return {"cotam shard": lambda: shard_folder(files, next(fresh))["images"], "ShardWriter": by_shard_writer}


def _rates(ways: dict[str, Way], repeats: int, title: str, images: int) -> list[dict[str, float]]:
    """Images per second of every way, once per repeat; each but the training has to do with all `images`."""
    found = []
    for repeat in track(range(repeats), title):
        names = list(ways) if repeat % 2 else list(ways)[::-1]
        found.append({name: _rate(name, ways[name], None if name == "training" else images) for name in names})
    return found


def _rate(name: str, way: Way, expected: int | None) -> float:
    start = time.perf_counter()
    images = way()
    seconds = time.perf_counter() - start
    assert images == (expected or images), f"{name} gave {images} of {expected} pictures"
    return images / seconds


def _summary(rates: list[dict[str, float]], pairs: tuple[tuple[str, str], ...]) -> dict:
    return {
        "images_per_second": {name: _spread([rate[name] for rate in rates], 1) for name in sorted(rates[0])},
        "ratios": {f"{one} / {other}": _spread([rate[one] / rate[other] for rate in rates], 3) for one, other in pairs},
    }


def _spread(values: list[float], digits: int) -> dict[str, float]:
    ends = {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}
    return {name: round(value, digits) for name, value in ends.items()}


def main() -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", action="store_true", help="report as JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(args.images, args.repeats, config.load(), Path(folder))
    if args.json:
        print(json.dumps(result, indent=2))
        return 0
    size = f"{result['megabytes']} MB in {result['shards']} shards, {result['repeats']} repeats"
    print(f"{result['images']} scenes of 128 x 128 pixels as PNG, {size}; medians, and the spread over the repeats")
    for title in ("reading", "writing"):
        for name, rate in result[title]["images_per_second"].items():
            print(f"{title}  {name:25} {rate['median']:7.0f} images/s ({rate['lowest']:.0f} to {rate['highest']:.0f})")
        for name, ratio in result[title]["ratios"].items():
            print(f"{title}  {name}: {ratio['median']:.2f} ({ratio['lowest']:.2f} to {ratio['highest']:.2f})")
    print(f"hashing all shards, once per process: {result['hashing_seconds']:.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
