"""What a million and ten billion pictures would take, carried on from rates that are measured here.

    python -m benchmarks.scale [--images 2000] [--write]

Pictures as large as CC3M's, once through `benchmarks.many_images` (packing, reading from disk and from S3), and what
one process takes that fills the feature store with the models of params.yaml. The memory of a listing is that of the
hundred thousand pictures in docs/many-images.json. Everything is carried on in proportion: one machine like this one,
one pass. --write puts the table into docs/data.md and the numbers into docs/scale.json.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import data_s3, many_images
from components import config
from components.errors import CotamError
from components.files import read_json, write_json
from components.paths import ROOT
from components.reporting.marks import fill

FOUND = ROOT / "docs/scale.json"
SIDE = 256  # pixels, img2dataset's default; the JPEG has 33 KB
SETS = {"CC3M, 1 million": 10**6, "10 billion": 10**10}
ROW_BYTES, DIGEST_BYTES, PLAIN_MB = 24, 32, 45
"""Of a picture in index.npy and in digests.npy, and a process that has listed nothing."""
PRICE = 0.023
"""Dollars per GB and month, a common list price of object storage in 2026; what yours asks is yours to put in."""


def measure(images: int, settings: config.Settings, folder: Path) -> dict[str, Any]:
    """Rates per second, bytes and memory per picture."""
    found = many_images.measure(images, SIDE, 4, 100, folder / "many")
    ways = found["ways"]
    fills, taken, start = data_s3.training(settings, folder / "features"), 0, time.perf_counter()
    while time.perf_counter() - start < 30:
        taken += fills()
    filling = taken / (time.perf_counter() - start)
    many = read_json(many_images.FOUND)
    listing = (many["ways"]["listing the source"]["peak_mb"] - PLAIN_MB) * 2**20 / many["images"]
    return {
        "images": images,
        "side": SIDE,
        "bytes_per_picture": round(found["bytes"] / images),
        "listing_bytes_per_picture": round(listing),
        "images_per_second": {
            "packing": ways["cotam shard, killed once"]["images_per_second"],
            "reading from disk, shuffled": ways["disk, shuffled"]["images_per_second"],
            "reading from S3, in order": ways["S3, in order, no cache"]["images_per_second"],
            "filling the feature store, one process": round(filling, 2),
        },
    }


def table(found: dict[str, Any]) -> str:
    """Markdown: a row per thing that is needed, a column per data set."""
    rows = [["", "measured", *SETS], ["---", "---:", *["---:"] * len(SETS)]]
    size = found["bytes_per_picture"]
    rows.append(["shards", f"{size / 1000:.0f} KB a picture", *(_bytes(size * n) for n in SETS.values())])
    dollars = (f"{size * n / 1e9 * PRICE:,.0f} dollars a month" for n in SETS.values())
    rows.append([f"kept at {PRICE} dollars per GB and month", "", *dollars])
    rows.append(["index and digests of a link", f"{ROW_BYTES + DIGEST_BYTES} bytes", *_of(ROW_BYTES + DIGEST_BYTES)])
    listing = found["listing_bytes_per_picture"]
    rows.append(["memory that lists the source of one run", f"{listing} bytes", *_of(listing)])
    for name, rate in found["images_per_second"].items():
        rows.append([name, f"{rate:,.4g} images/s", *(_duration(n / rate) for n in SETS.values())])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _of(size: float) -> list[str]:
    return [_bytes(size * count) for count in SETS.values()]


def _bytes(size: float) -> str:
    return next(f"{size / unit:,.3g} {name}" for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")) if size >= unit)


def _duration(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:,.3g} hours" if hours < 1000 else f"{hours / 24 / 365.25:,.3g} years"


def main() -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--write", action="store_true", help="into docs/data.md and docs/scale.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "many").mkdir()
        found = measure(args.images, config.load(), Path(folder))
    print(table(found))
    if args.write:
        fill(many_images.PAGE, {"SCALE": table(found)})
        write_json(FOUND, found)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CotamError as error:
        sys.exit(f"scale: {error}")
