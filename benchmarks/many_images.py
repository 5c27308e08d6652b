"""A large data set from end to end: packed in parts with a kill in the middle, read, resumed, and streamed from S3.

    python -m benchmarks.many_images [--images 100000] [--side 64] [--parts 4] [--write]

Pictures are drawn from their numbers and written as img2dataset writes CC3M: tars of 10,000 with NUMBER.jpg,
NUMBER.txt and NUMBER.json. `cotam shard --parts` is killed (SIGKILL) once the first shards are there, and run again.
Then every picture must be in the shards once, bit for bit; an epoch read from its middle must go on as the whole one
did; and the shards, copied to S3 and linked, must give the same pictures in their order, in an epoch and in one that
goes on from its middle. Each reading is a process of its own, whose peak of memory is its own too. Whatever is not as
it should be ends the run with an error. --write puts the table into docs/data.md and the numbers into
docs/many-images.json.
"""

import argparse
import hashlib
import io
import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from components import paths
from components.data import ShardReader
from components.data.linking import link_shards
from components.data.parts import folder_of_parts
from components.data.sources import open_source
from components.files import write_json
from components.paths import ROOT
from components.progress import track
from components.reporting.marks import fill

FOUND, PAGE = ROOT / "docs/many-images.json", ROOT / "docs/data.md"
TAR_IMAGES = 10_000
QUALITY = 90


def picture(number: int, side: int) -> bytes:
    """A JPEG of `side` x `side` pixels that no other number gives: coarse noise, as large as a photograph's file."""
    coarse = np.random.default_rng(number).integers(0, 256, (side // 4, side // 4, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def write_source(folder: Path, images: int, side: int) -> None:
    """Tars in img2dataset's layout."""
    folder.mkdir()
    numbers = iter(track(range(images), "Drawing"))
    for tar_number in itertools.count():
        if not (taken := list(itertools.islice(numbers, TAR_IMAGES))):
            return
        with tarfile.open(folder / f"{tar_number:05d}.tar", "w") as tar:
            for number in taken:
                about = json.dumps({"key": f"{number:09d}", "caption": f"picture {number}"}).encode()
                members = {"jpg": picture(number, side), "txt": f"picture {number}".encode(), "json": about}
                for suffix, content in members.items():
                    member = tarfile.TarInfo(f"{number:09d}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


def shard(source: Path, out: Path, parts: int, shard_images: int) -> dict[str, float]:
    """Pack in parts, with a kill once the first shards are there.

    Returns:
        seconds of both runs, finished shards that the second took over, and its peak of memory in MB.
    """
    command = [sys.executable, "-m", "components.cli", "shard", str(source), "-o", str(out), "--parts", str(parts)]
    command += ["--shard-images", str(shard_images), "--no-track"]
    start = time.perf_counter()
    killed = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    while not _finished(out, parts):
        assert killed.poll() is None, "it ended before its first shard"
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    finished = _finished(out, parts)
    again, peak = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), 0.0
    while again.poll() is None:
        peak = max(peak, peak_mb(again.pid))
        time.sleep(0.05)
    assert again.returncode == 0, f"`cotam shard` ended with {again.returncode}"
    seconds = time.perf_counter() - start
    kept = finished & {path.stat().st_ino for path in out.glob("*.tar")}
    assert kept == finished, "what was finished has been made again"
    return {"seconds": seconds, "shards_kept": len(kept), "peak_mb": peak}


def _finished(out: Path, parts: int) -> set[int]:
    """The inodes of the shards that a run has finished, which are in the folder in the end."""
    notes = folder_of_parts(out, parts).rglob("*.part.json")
    return {note.with_name(f"{note.name.partition('.')[0]}.tar").stat().st_ino for note in notes}


def peak_mb(process: int | str = "self") -> float:
    """The most memory that a process has had, in MB; 0 when it has ended."""
    # getrusage tells a child what its parent had as well
    status = Path(f"/proc/{process}/status").read_text()
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0.0)


def check_shards(shards: Path, images: int, side: int) -> None:
    """Every picture is there once, and its bytes are those that were packed."""
    seen = np.zeros(images, bool)
    for path in track(sorted(shards.glob("*.tar")), "Comparing"):
        with tarfile.open(path) as tar:
            members = iter(tar)
            for image, about in zip(members, members, strict=True):
                name = json.loads(tar.extractfile(about).read())["name"]
                number = int(Path(name).stem)
                assert not seen[number], f"{name} is there twice"
                assert tar.extractfile(image).read() == picture(number, side), f"{name} has changed"
                seen[number] = True
    assert seen.all(), f"{images - seen.sum()} pictures are missing"


def digests(pictures: Iterable[Image.Image]) -> Iterator[bytes]:
    """16 bytes of each picture's pixels."""
    return (hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in pictures)


def apart(what: Callable[..., Any], *arguments: Any) -> tuple[Any, float, float]:
    """What a function gives in a fresh process, its seconds (without imports) and that process's peak of memory, MB."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (what, arguments))


def _measured(what: Callable[..., Any], arguments: tuple) -> tuple[Any, float, float]:
    start = time.perf_counter()
    found = what(*arguments)
    return found, time.perf_counter() - start, peak_mb()


def epoch(folder: Path, start: int = 0, state: Path | None = None) -> bytes:
    """The digests of a shuffled epoch from a place on, in a row; shards on S3 are cached in `state`."""
    paths.STATE = state or paths.STATE
    return b"".join(digests(ShardReader(folder, seed=7).images(0, start)))


def in_order(folder: Path) -> bytes:
    """The digests of all pictures in the order in the shards, as the feature store reads them."""
    reader = ShardReader(folder, seed=7)
    return b"".join(digests(reader.read(range(len(reader)))))


def listed(source: Path) -> int:
    """How many pictures a source says that it has; all of them are in memory at once."""
    return len(open_source(source).list().items)


def measure(images: int, side: int, parts: int, shard_images: int, folder: Path) -> dict[str, Any]:
    """All of it.

    Returns:
        `images`, `side`, `parts`, `bytes` of the shards, `shards_kept` after the kill, `empty_mb` of a process that
        does nothing, and per way its `images_per_second` and `peak_mb`.
    """
    from benchmarks import data_s3  # imports torch, whose memory is not that of reading

    source, shards = folder / "source", folder / "shards"
    write_source(source, images, side)
    packed = shard(source, shards, parts, shard_images)
    check_shards(shards, images, side)
    ways = {"cotam shard, killed once": (packed["seconds"], packed["peak_mb"])}
    *_, nothing = apart(os.getpid)
    _, *ways["listing the source"] = apart(listed, source)

    whole, *ways["disk, shuffled"] = apart(epoch, shards)
    assert len(whole) == 16 * images and len({whole[i : i + 16] for i in range(0, len(whole), 16)}) == images
    rest, *_ = apart(epoch, shards, images // 3)
    assert rest == whole[16 * (images // 3) :], "an epoch that goes on is another one"
    straight, *ways["disk, in order"] = apart(in_order, shards)
    with data_s3.store(folder / "store") as url:
        data_s3.upload(shards, url)
        _, *ways["linking"] = apart(link_shards, url, folder / "link")
        with mock.patch.dict(os.environ, {"COTAM_SHARD_CACHE": "0"}):
            streamed, *ways["S3, in order, no cache"] = apart(in_order, folder / "link")
        assert streamed == straight, "S3 gave other pictures"
        streamed, *ways["S3, shuffled, first epoch with a cache"] = apart(epoch, folder / "link", 0, folder / "state")
        assert streamed == whole, "S3 gave another epoch"
        rest, *ways["S3, shuffled, from the first third, cache full"] = apart(
            epoch, folder / "link", images // 3, folder / "state"
        )
        assert rest == whole[16 * (images // 3) :], "an epoch from S3 that goes on is another one"
    counts = {"S3, shuffled, from the first third, cache full": images - images // 3}
    return {
        "images": images,
        "side": side,
        "parts": parts,
        "bytes": sum(path.stat().st_size for path in shards.glob("*.tar")),
        "shards": len(list(shards.glob("*.tar"))),
        "shards_kept": packed["shards_kept"],
        "empty_mb": round(nothing),
        "ways": {
            name: {"images_per_second": round(counts.get(name, images) / seconds, 1), "peak_mb": round(peak)}
            for name, (seconds, peak) in ways.items()
        },
    }


def table(found: dict[str, Any]) -> str:
    """Markdown: a row per way."""
    size = f"{found['bytes'] / 1e6:.0f} MB in {found['shards']} shards"
    what = f"{found['images']:,} pictures of {found['side']} x {found['side']} pixels, {size}"
    lines = [f"| {what} | images/s | peak of memory |", "| --- | ---: | ---: |"]
    for name, way in found["ways"].items():
        lines.append(f"| {name} | {way['images_per_second']:,.0f} | {way['peak_mb']} MB |")
    return "\n".join(lines)


def main() -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--parts", type=int, default=4)
    parser.add_argument("--shard-images", type=int, default=1000)
    parser.add_argument("--write", action="store_true", help="into docs/data.md and docs/many-images.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(args.images, args.side, args.parts, args.shard_images, Path(folder))
    print(table(found))
    if args.write:
        fill(PAGE, {"MANY": table(found)})
        write_json(FOUND, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
