"""What a million and ten billion pictures would take, carried on from rates that are measured here.

    python -m benchmarks.scale [--images 20000] [--write]

Pictures as large as CC3M's, once through `benchmarks.many_images` (packing, reading from disk and from S3), and what
one process takes that fills the feature store with the models of params.yaml. The memory of a listing is that of the
hundred thousand pictures in docs/many-images.json. Everything is carried on in proportion: one machine like this one,
one pass. --write puts the table into docs/data.md and the numbers into docs/scale.json.
"""

import argparse
import sys
import tempfile
import time
from math import ceil
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
ROW_BYTES, DIGEST_BYTES = 24, 32
"""Of a picture in index.npy and in digests.npy."""
PRICE = 0.023
"""Dollars per GB and month, a common list price of object storage in 2026; what yours asks is yours to put in."""


def measure(images: int, settings: config.Settings, folder: Path) -> dict[str, Any]:
    """Rates per second, bytes and memory per picture."""
    if not many_images.FOUND.is_file():
        raise CotamError(f"{many_images.FOUND} is missing; run `python -m benchmarks.many_images --write` first.")
    many = read_json(many_images.FOUND)
    found = many_images.measure(images, SIDE, 4, 100, folder / "many")
    ways = found["ways"]
    fills, taken, start = data_s3.training(settings, folder / "features"), 0, time.perf_counter()
    while time.perf_counter() - start < 30:
        taken += fills()
    filling = taken / (time.perf_counter() - start)
    listing = (many["ways"]["listing the source"]["peak_mb"] - many["empty_mb"]) * 2**20 / many["images"]
    return {
        "images": images,
        "side": SIDE,
        "bytes_per_picture": round(found["bytes"] / images),
        "listing_bytes_per_picture": round(listing),
        "images_per_second": {
            "packing": ways["cotam shard, killed once"]["images_per_second"],
            "reading from the page cache, shuffled": ways["disk, shuffled"]["images_per_second"],
            "reading from S3, in order": ways["S3, in order, no cache"]["images_per_second"],
            "filling the feature store, one process": round(filling, 2),
        },
    }


def table(found: dict[str, Any]) -> str:
    """Markdown: a row per thing that is needed, a column per data set."""
    rows = [["", "measured", *SETS], ["---", "---:", *["---:"] * len(SETS)]]
    size = found["bytes_per_picture"]
    rows.append(["shards", f"{size / 1000:.0f} KB a picture", *(_bytes(size * n) for n in SETS.values())])
    dollars = (f"{_short(size * n / 1e9 * PRICE)} dollars a month" for n in SETS.values())
    rows.append([f"kept at {PRICE} dollars per GB and month", "", *dollars])
    rows.append(["index and digests of a link", f"{ROW_BYTES + DIGEST_BYTES} bytes", *_of(ROW_BYTES + DIGEST_BYTES)])
    listing = found["listing_bytes_per_picture"]
    rows.append(["memory that lists the source of one run", f"{listing} bytes", *_of(listing)])
    for name, rate in found["images_per_second"].items():
        rows.append([name, f"{_short(rate)} images/s", *(_duration(n / rate) for n in SETS.values())])
        if name == "packing":
            rows.append(["machines that pack it in a day", "", *(f"{ceil(n / rate / 86400):,}" for n in SETS.values())])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _of(size: float) -> list[str]:
    return [_bytes(size * count) for count in SETS.values()]


def _bytes(size: float) -> str:
    units = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"))
    return next(f"{_short(size / unit)} {name}" for unit, name in units if size >= unit)


def _duration(seconds: float) -> str:
    units = ((365.25 * 86400, "years"), (86400, "days"), (3600, "hours"), (60, "minutes"))
    return next(f"{_short(seconds / unit)} {name}" for unit, name in units if seconds >= 2 * unit)


def _short(value: float) -> str:
    """Three digits of it, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main() -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000)
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
