"""A source of pictures -> a folder of WebDataset shards that any machine would make the same, byte for byte.

Pictures are checked, made plain RGB, put into an order that depends on their names and the seed alone, and packed. A
run that was killed goes on after its last finished shard; the folder appears only when all of it is there. Several
processes or machines can share the work (`parts.py`).
"""

import hashlib
import itertools
import json
import shutil
import tarfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from components.data.held import writing
from components.data.images import MAXIMUM_PIXELS
from components.data.manifest import FORMAT, INDEX, MANIFEST, VERSION, is_shards
from components.data.packing import Picture, Rules, prepare_all
from components.data.parquet import open_with_tables
from components.data.sources import Item, Listing, Source
from components.errors import CotamError
from components.files import atomic_file, read_json, replace, sha256, write_json
from components.progress import track


@dataclass(frozen=True)
class Share:
    """Part `part` (1 ... `parts`) of a source: an interval of the order, which is one of `parts` of equal length."""

    part: int
    parts: int


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
        source: a folder of pictures, of WebDataset tar files or of parquet files, or s3://BUCKET/PREFIX.
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
    with writing(target, work):
        origin = open_with_tables(source, work / "tables", without=target)
        return make_shards(name or str(source), origin, origin.list(), rules, target, work / "shards")


def refuse_unsafe(source: str | Path, target: Path) -> None:
    """Raise CotamError if making shards of `source` in `target` would destroy anything but older shards."""
    if "://" not in str(source) and Path(source).expanduser().resolve().is_relative_to(target):
        raise CotamError(f"{source} would be overwritten; write the shards to another folder.")
    if target.exists() and not (target.is_dir() and (is_shards(target) or not any(target.iterdir()))):
        raise CotamError(f"{target} exists and does not hold shards; choose another folder or remove it.")


def make_shards(
    name: str,
    source: Source,
    listing: Listing,
    rules: Rules,
    target: Path,
    folder: Path,
    share: Share | None = None,
) -> dict[str, Any]:
    """Write everything of `target` into `folder`, where finished shards of an earlier run may lie, and rename it.

    Args:
        name: what the manifest calls the source.
        source, listing: what there is.
        rules: what is taken.
        target: the folder to write.
        folder: on the same disk.
        share: the part of the pictures that is wanted, which may be none; by default all.

    Returns:
        The manifest.

    Raises:
        CotamError: there is nothing to shard.
    """
    if not listing.items:
        others = ", ".join(f"{count} {suffix}" for suffix, count in listing.ignored.items())
        raise CotamError(f"{name} holds no images{f' (only {others})' if others else ''}; give a folder of images.")
    before, items = _share_of(listing.items, rules.seed, share) if share else (0, listing.items)
    items = sorted(items, key=lambda item: _rank(rules.seed, item.name))
    plan = plan_of(rules, listing, share)
    parts = _finished_parts(folder, plan)
    done = parts[-1]["end"] if parts else 0

    pictures = zip(range(done + 1, len(items) + 1), prepare_all(source, items[done:], rules), strict=True)
    shown = track(itertools.chain(range(done), pictures), "Sharding", len(items))
    for _ in range(done):  # so that the bar starts where the last run ended
        next(shown)
    taken: list[Picture] = []
    skipped: list[dict[str, str]] = []
    for end, outcome in shown:
        if isinstance(outcome, Picture):
            taken.append(outcome)
        else:
            skipped.append(outcome)
        if len(taken) == rules.shard_images or (end == len(items) and (taken or skipped)):
            first = before + sum(len(part["places"]) for part in parts)
            parts.append(_write_part(folder, len(parts), first, taken, {"end": end, "skipped": skipped}))
            taken, skipped = [], []
    shards = [part for part in parts if part["places"]]
    index = [[number, *place] for number, part in enumerate(shards) for place in part["places"]]
    skipped = [skip for part in parts for skip in part["skipped"]]
    manifest = write_manifest(
        name, rules, listing, _entries(shards), index, skipped, folder, {"plan": plan} if share else {}
    )
    replace(folder, target)
    return manifest


def plan_of(rules: Rules, listing: Listing, share: Share | None) -> dict[str, Any]:
    """All that shards depend on."""
    plan = {"rules": asdict(rules), "listing": listing.key, "version": VERSION}
    return plan | asdict(share) if share else plan


def _rank(seed: int, name: str) -> bytes:
    """Where a picture stands in the order: the same on any machine, whatever else is in the folder."""
    return hashlib.sha256(f"{seed}/{name}".encode(errors="surrogateescape")).digest()


def _share_of(items: list[Item], seed: int, share: Share) -> tuple[int, list[Item]]:
    """How many of `items` come before the share in their order, and those in it, as they stand in `items`."""
    of = [int.from_bytes(_rank(seed, item.name)[:8]) * share.parts >> 64 for item in items]
    before = sum(part < share.part - 1 for part in of)
    return before, [item for item, part in zip(items, of, strict=True) if part == share.part - 1]


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


def _write_part(
    folder: Path, number: int, first: int, pictures: list[Picture], rest: dict[str, Any]
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


def _write_tar(path: Path, first: int, pictures: list[Picture]) -> None:
    from webdataset import TarWriter  # imports torch

    # No times and no owners: the same pictures are the same bytes.
    with open(path, "wb") as file, TarWriter(file, encoder=False, mtime=0, user="", group="") as tar:
        for number, picture in enumerate(pictures, first):
            about = json.dumps(picture.about, sort_keys=True).encode()
            tar.write({"__key__": f"{number:09d}", picture.kind: picture.content, "json": about})


def _entries(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the manifest says of shards."""
    return [
        {"file": part["file"], "images": len(part["places"]), "bytes": part["bytes"], "sha256": part["sha256"]}
        for part in parts
    ]


def write_manifest(
    name: str,
    rules: Rules,
    listing: Listing,
    shards: list[dict[str, Any]],
    index: ArrayLike,
    skipped: list[dict[str, str]],
    folder: Path,
    more: dict[str, Any],
) -> dict[str, Any]:
    """Write index.npy and manifest.json over finished shards, and remove the notes.

    Args:
        name, rules, listing: as in `make_shards`.
        shards: of each `file`, `images`, `bytes` and `sha256`.
        index: shard, offset and size of each picture, (N, 3).
        skipped: of each picture that was, `name` and `reason`.
        folder: where they lie.
        more: what else the manifest is to say.

    Returns:
        The manifest.

    Raises:
        CotamError: all pictures were skipped. (Of a part they may be.)
    """
    skipped = sorted(skipped, key=lambda skip: skip["name"])
    if not shards and "plan" not in more:
        example = f"{skipped[0]['name']} {skipped[0]['reason']}"
        raise CotamError(f"None of the {len(skipped)} images in {name} can be used; the first: {example}.")
    index = np.asarray(index, dtype=np.int64).reshape(-1, 3)
    with atomic_file(folder / INDEX) as temporary, open(temporary, "wb") as file:
        np.save(file, index, allow_pickle=False)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "source": name,
        **asdict(rules),
        **more,
        "images": len(index),
        "bytes": sum(shard["bytes"] for shard in shards),
        "index": {"file": INDEX, "bytes": (folder / INDEX).stat().st_size, "sha256": sha256(folder / INDEX)},
        "shards": shards,
        "skipped": skipped,
        "ignored": listing.ignored,
    }
    write_json(folder / MANIFEST, manifest)
    for note in (folder / "plan.json", *folder.glob("*.part.json")):
        note.unlink(missing_ok=True)
    return manifest
