"""Shards made in parts, by as many processes or machines as there are, which share the source and a disk.

A part is an interval of the order: the parts one after the other are the pictures that one run would have packed, in
its order. Only the last shard of each is shorter, so the number of parts belongs to the result. A part that was killed
goes on after its last finished shard; one that is finished is not made again; one that another run is at is waited for.
"""

import os
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from components.data.held import only_run, writing
from components.data.images import MAXIMUM_PIXELS
from components.data.manifest import MANIFEST, is_shards, read_index, read_manifest
from components.data.packing import Rules
from components.data.parquet import open_with_tables
from components.data.sharding import Share, make_shards, plan_of, refuse_unsafe, write_manifest
from components.data.sources import Listing, Source
from components.errors import CotamError
from components.files import read_json, replace


def shard_parts(
    source: str | Path,
    out: str | Path,
    parts: int,
    part: int | None = None,
    *,
    seed: int = 0,
    shard_images: int = 500,
    minimum_side: int = 32,
    maximum_pixels: int = MAXIMUM_PIXELS,
) -> dict[str, Any]:
    """Make one part, or all that are missing and the folder of them together.

    Args:
        source, out, seed, shard_images, minimum_side, maximum_pixels: see `shard_folder`.
        parts: how many there are.
        part: the one to make, 1 ... `parts`; None: all, and `out`.

    Returns:
        The manifest of the part, or of `out`.

    Raises:
        CotamError: there is nothing to shard, no room, or another run is writing the same folder.
    """
    rules, target = Rules(seed, shard_images, minimum_side, maximum_pixels), Path(out).resolve()
    refuse_unsafe(source, target)
    tables = folder_of_parts(target, parts) / "tables"  # unpacked once for all parts
    origin = open_with_tables(source, tables, without=target)
    listing = origin.list()
    wanted = [part] if part else range(1, parts + 1)
    made = [_make(str(source), origin, listing, rules, target, Share(number, parts)) for number in wanted]
    return made[0] if part else _join(str(source), listing, rules, target, parts)


def folder_of_parts(target: Path, parts: int) -> Path:
    """Where the parts of a folder lie until they are put together."""
    return target.with_name(f".{target.name}.{parts}-parts.tmp")


def part_folder(target: Path, share: Share) -> Path:
    """Where one of them lies."""
    return folder_of_parts(target, share.parts) / f"{share.part:05d}"


def take(file: Path, to: Path) -> None:
    """Put a file where another name is wanted for it, without its bytes if the disk has links."""
    try:
        os.link(file, to)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(file, to)


def _make(name: str, source: Source, listing: Listing, rules: Rules, target: Path, share: Share) -> dict[str, Any]:
    folder = part_folder(target, share)
    work = folder.with_suffix(".tmp")
    with writing(folder, work, wait=True):
        if is_shards(folder):
            if read_json(folder / MANIFEST).get("plan") == plan_of(rules, listing, share):
                return read_manifest(folder)
            say = f"Part {share.part} was made of another source or with other settings, and is made again."
            print(say, file=sys.stderr, flush=True)
        return make_shards(name, source, listing, rules, folder, work / "shards", share)


def _join(name: str, listing: Listing, rules: Rules, target: Path, parts: int) -> dict[str, Any]:
    """One folder of all parts, whose shards are numbered through."""
    root = folder_of_parts(target, parts)
    shares = [Share(number, parts) for number in range(1, parts + 1)]
    with writing(target, root / "joined"), ExitStack() as held:
        for share in shares:  # or one might be made anew meanwhile
            held.enter_context(only_run(part_folder(target, share).with_suffix(".tmp"), target, wait=True))
        folder = root / "joined/shards"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        shards, indices, skipped = [], [], []
        for share in shares:
            part = part_folder(target, share)
            manifest = read_manifest(part)
            if manifest.get("plan") != plan_of(rules, listing, share):
                raise CotamError(
                    f"Part {share.part} has been made meanwhile of another source or with other settings; run the same "
                    "again."
                )
            indices.append(np.add(read_index(part, manifest), (len(shards), 0, 0)))
            skipped += manifest["skipped"]
            for shard in manifest["shards"]:
                shards.append({**shard, "file": f"{len(shards):05d}.tar"})
                take(part / shard["file"], folder / shards[-1]["file"])
        index = np.concatenate(indices)
        manifest = write_manifest(name, rules, listing, shards, index, skipped, folder, {"parts": parts})
        replace(folder, target)
    shutil.rmtree(root)
    return manifest
