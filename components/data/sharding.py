"""A source of pictures -> a folder of WebDataset shards that any machine would make the same, byte for byte.

Pictures are checked, made plain RGB, put into an order that depends on their names and the seed alone, and packed. A
run that was killed goes on after its last finished shard; the folder appears only when all of it is there.
"""

import errno
import hashlib
import io
import itertools
import json
import shutil
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from PIL import Image

from components.ahead import in_order
from components.data.images import FORMATS, MAXIMUM_PIXELS, UnusableImageError, decode
from components.data.manifest import FORMAT, INDEX, MANIFEST, VERSION, is_shards
from components.data.sources import Item, Listing, Source, open_source
from components.errors import CotamError
from components.files import atomic_file, read_json, replace, sha256, write_json
from components.progress import track

READERS = 8  # threads; a picture from S3 takes longer to arrive than to check
AHEAD = 4 * READERS  # pictures in memory at most,
AHEAD_BYTES = 1 << 28  # and their files' bytes
LARGE = 16_000_000  # pixels: of pictures with more one is decoded at a time, or eight of the maximum would fill memory
_one_large = threading.Lock()
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Rules:
    """What goes into shards, and in which order (see `shard_folder`). Part of the manifest."""

    seed: int
    shard_images: int
    minimum_side: int
    maximum_pixels: int


@dataclass(frozen=True)
class _Picture:
    content: bytes
    kind: str  # "jpg" or "png"
    about: dict[str, Any]  # what NUMBER.json says


def shard_folder(
    source: str | Path,
    out: str | Path,
    *,
    seed: int = 0,
    shard_images: int = 500,
    minimum_side: int = 32,
    maximum_pixels: int = MAXIMUM_PIXELS,
    work: Path | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """Pack the pictures of `source` into shards.

    Args:
        source: a folder of pictures or of WebDataset tar files, or s3://BUCKET/PREFIX.
        out: the folder to write; older shards there are replaced, anything else is left alone and refused.
        seed: of the order.
        shard_images: pictures per tar file.
        minimum_side: pictures with a shorter side are skipped.
        maximum_pixels: pictures with more are skipped.
        work: where unfinished shards lie, on the same disk as `out`; by default a hidden folder beside `out`.
        name: what the manifest calls the source; by default what `source` says.

    Returns:
        The manifest.

    Raises:
        CotamError: there is nothing to shard, no room, or another run is writing the same folder.
    """
    rules = Rules(seed, shard_images, minimum_side, maximum_pixels)
    target = Path(out).resolve()
    work = work or target.with_name(f".{target.name}.shards.tmp")
    refuse_unsafe(source, target)
    try:
        with only_run(work, target):
            try:
                manifest = _shard(name or str(source), open_source(source, without=target), rules, work / "shards")
                replace(work / "shards", target)
            finally:
                if not any(work.glob("shards/*.tar")):  # nothing to go on from
                    shutil.rmtree(work)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise CotamError(
            f"{out} cannot be written ({error.strerror}); free some room and run the same again, which goes on from "
            "the last finished shard."
        ) from None
    return manifest


def refuse_unsafe(source: str | Path, target: Path) -> None:
    """Raise CotamError if making shards of `source` in `target` would destroy anything but older shards."""
    if "://" not in str(source) and Path(source).expanduser().resolve().is_relative_to(target):
        raise CotamError(f"{source} would be overwritten; write the shards to another folder.")
    if target.exists() and not (target.is_dir() and (is_shards(target) or not any(target.iterdir()))):
        raise CotamError(f"{target} exists and does not hold shards; choose another folder or remove it.")


@contextmanager
def only_run(work: Path, target: Path) -> Iterator[None]:
    """Make the folder `work`, and hold it while the block lasts; CotamError if another run does."""
    work.mkdir(parents=True, exist_ok=True)
    lock = FileLock(work / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise CotamError(f"Another run is writing {target}; wait for it or choose another folder.") from None
    try:
        yield
    finally:
        lock.release()


def _shard(name: str, source: Source, rules: Rules, folder: Path) -> dict[str, Any]:
    """Write everything of the final folder into `folder`, where finished shards of an earlier run may lie."""
    listing = source.list()
    if not listing.items:
        others = ", ".join(f"{count} {suffix}" for suffix, count in listing.ignored.items())
        raise CotamError(f"{name} holds no images{f' (only {others})' if others else ''}; give a folder of images.")
    items = sorted(listing.items, key=lambda item: _rank(rules.seed, item.name))
    parts = _finished_parts(folder, {"rules": asdict(rules), "listing": listing.key, "version": VERSION})
    done = parts[-1]["end"] if parts else 0

    pictures = zip(range(done + 1, len(items) + 1), _prepare_all(source, items[done:], rules), strict=True)
    shown = track(itertools.chain(range(done), pictures), "Sharding", len(items))
    for _ in range(done):  # so that the bar starts where the last run ended
        next(shown)
    taken: list[_Picture] = []
    skipped: list[dict[str, str]] = []
    for end, outcome in shown:
        if isinstance(outcome, _Picture):
            taken.append(outcome)
        else:
            skipped.append(outcome)
        if len(taken) == rules.shard_images or (end == len(items) and (taken or skipped)):
            first = sum(len(part["places"]) for part in parts)
            parts.append(_write_part(folder, len(parts), first, taken, {"end": end, "skipped": skipped}))
            taken, skipped = [], []
    return _write_manifest(name, rules, listing, parts, folder)


def _rank(seed: int, name: str) -> bytes:
    """Where a picture stands in the order: the same on any machine, whatever else is in the folder."""
    return hashlib.sha256(f"{seed}/{name}".encode(errors="surrogateescape")).digest()


def _finished_parts(folder: Path, plan: dict[str, Any]) -> list[dict[str, Any]]:
    """What an earlier run with the same plan has finished; anything else in `folder` is removed."""
    if not (folder / "plan.json").is_file() or read_json(folder / "plan.json") != plan:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_json(folder / "plan.json", plan)
    parts: list[dict[str, Any]] = []
    while (path := folder / f"{len(parts):05d}.part.json").is_file():
        parts.append(read_json(path))
    kept = {"plan.json", *(f"{number:05d}.part.json" for number in range(len(parts)))}
    kept.update(part["file"] for part in parts if part["places"])
    for path in folder.iterdir():
        if path.name not in kept:
            path.unlink()
    return parts


def _prepare_all(source: Source, items: list[Item], rules: Rules) -> Iterator[_Picture | dict[str, str]]:
    """Read and check pictures some places ahead, in several threads; yield them in their order."""
    return in_order(
        lambda item: _prepare(source, item, rules),
        items,
        threads=READERS,
        ahead=AHEAD,
        weigh=lambda item: item.size,
        heaviest=AHEAD_BYTES,
    )


def _prepare(source: Source, item: Item, rules: Rules) -> _Picture | dict[str, str]:
    """A picture as it goes into a shard, or which one is skipped and why."""
    name = item.name.encode(errors="surrogateescape").decode(errors="replace")  # JSON holds only Unicode
    try:
        content = source.read(item)
        with _one_large if _pixels(content) > LARGE else nullcontext():
            return _as_packed(name, content, rules)
    except UnusableImageError as error:
        return {"name": name, "reason": str(error)}


def _as_packed(name: str, content: bytes, rules: Rules) -> _Picture:
    """Raises UnusableImageError: it is not to be used."""
    image, kind = decode(content, rules.maximum_pixels)
    if min(image.size) < rules.minimum_side:
        raise UnusableImageError(
            f"is {image.width} x {image.height} pixels, smaller than the minimum side of {rules.minimum_side}"
        )
    if kind is None:
        file = io.BytesIO()
        image.save(file, "PNG", compress_level=1)  # a quarter larger than the default, in a third of the time
        content, kind = file.getvalue(), "png"
    return _Picture(content, kind, {"name": name, "width": image.width, "height": image.height})


def _pixels(content: bytes) -> int:
    """What a file's head promises; 0 where it cannot be read, of which `decode` says why."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return image.width * image.height
    except Exception:  # decoders of damaged files raise anything
        return 0


def _write_part(
    folder: Path, number: int, first: int, pictures: list[_Picture], rest: dict[str, Any]
) -> dict[str, Any]:
    """Write one shard, then the note that says it is finished."""
    part = {"file": f"{number:05d}.tar", "places": [], **rest}
    if pictures:
        path = folder / part["file"]
        with atomic_file(path) as temporary:
            _write_tar(temporary, first, pictures)
            with tarfile.open(temporary) as tar:
                part["places"] = [[m.offset_data, m.size] for m in tar if not m.name.endswith(".json")]
        part |= {"bytes": path.stat().st_size, "sha256": sha256(path)}
    write_json(folder / f"{number:05d}.part.json", part)
    return part


def _write_tar(path: Path, first: int, pictures: list[_Picture]) -> None:
    from webdataset import TarWriter  # imports torch

    # No times and no owners: the same pictures are the same bytes.
    with open(path, "wb") as file, TarWriter(file, encoder=False, mtime=0, user="", group="") as tar:
        for number, picture in enumerate(pictures, first):
            about = json.dumps(picture.about, sort_keys=True).encode()
            tar.write({"__key__": f"{number:09d}", picture.kind: picture.content, "json": about})


def _write_manifest(name: str, rules: Rules, listing: Listing, parts: list[dict], folder: Path) -> dict[str, Any]:
    """Write index.npy and manifest.json over the finished shards, and remove the notes."""
    shards = [part for part in parts if part["places"]]
    skipped = sorted((skip for part in parts for skip in part["skipped"]), key=lambda skip: skip["name"])
    if not shards:
        example = f"{skipped[0]['name']} {skipped[0]['reason']}"
        raise CotamError(f"None of the {len(skipped)} images in {name} can be used; the first: {example}.")
    rows = [[number, *place] for number, part in enumerate(shards) for place in part["places"]]
    with atomic_file(folder / INDEX) as temporary, open(temporary, "wb") as file:
        np.save(file, np.asarray(rows, dtype=np.int64), allow_pickle=False)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "source": name,
        **asdict(rules),
        "images": len(rows),
        "bytes": sum(part["bytes"] for part in shards),
        "index": {"file": INDEX, "bytes": (folder / INDEX).stat().st_size, "sha256": sha256(folder / INDEX)},
        "shards": [
            {"file": part["file"], "images": len(part["places"]), "bytes": part["bytes"], "sha256": part["sha256"]}
            for part in shards
        ],
        "skipped": skipped,
        "ignored": listing.ignored,
    }
    write_json(folder / MANIFEST, manifest)
    for note in (folder / "plan.json", *folder.glob("*.part.json")):
        note.unlink()
    return manifest
