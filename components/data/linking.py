"""Shards that lie on S3 -> a small folder that training reads them by: manifest, index, address, pictures' hashes.

Every shard is read once and compared with the manifest, and the SHA-256 of each of its pictures is kept: ranges of
bytes can then be checked by themselves. A link that was interrupted goes on after the shards that it has seen.
"""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from components.ahead import in_order
from components.data.held import clear, only_run
from components.data.linked_shards import fetch_shard
from components.data.local_shards import check_file
from components.data.manifest import DIGEST_BYTES, DIGESTS, INDEX, LOCATION, MANIFEST, read_index, read_manifest
from components.data.s3 import Prefix
from components.data.sharding import refuse_unsafe
from components.errors import CotamError
from components.files import atomic_file, atomic_write, replace, sha256, write_json
from components.progress import track

SHARDS = 4  # in memory at most


def link_shards(url: str, out: str | Path) -> dict[str, Any]:
    """Write a folder that stands for the shards below `url`.

    Args:
        url: s3://BUCKET/PREFIX, to which a folder that `cotam shard` wrote was copied.
        out: the folder to write; older shards there are replaced, anything else is left alone and refused.

    Returns:
        The manifest.

    Raises:
        CotamError: there are no such shards, or they are not what the manifest says.
    """
    objects, target = Prefix(url), Path(out).resolve()
    work = target.with_name(f".{target.name}.link.tmp")
    refuse_unsafe(url, target)
    there = {name: size for name, size, _ in objects.list()}
    if MANIFEST not in there or INDEX not in there:
        raise CotamError(
            f"{url} holds no shards; copy a folder that `cotam shard` wrote there, {MANIFEST} and {INDEX} included."
        )
    with only_run(work, target):
        manifest = _start(objects, work / "link")
        for entry in manifest["shards"]:
            if there.get(entry["file"]) != entry["bytes"]:
                size = there.get(entry["file"])
                found = "is missing" if size is None else f"has {size} bytes instead of {entry['bytes']}"
                raise CotamError(f"{objects.url}/{entry['file']} {found}; copy the shards there again.")
        _digest(objects, manifest, work / "link")
        replace(work / "link", target)
        clear(work)
    return manifest


def _start(objects: Prefix, folder: Path) -> dict[str, Any]:
    """The manifest, in `folder` with index and location; what an earlier run found of the same shards is left."""
    content = objects.read(MANIFEST)
    if not (folder / MANIFEST).is_file() or (folder / MANIFEST).read_bytes() != content:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        atomic_write(folder / MANIFEST, content)
    write_json(folder / LOCATION, {"url": objects.url})
    atomic_write(folder / INDEX, objects.read(INDEX))
    manifest = read_manifest(folder)
    check_file(folder / INDEX, manifest["index"]["sha256"])
    return manifest


def _digest(objects: Prefix, manifest: dict[str, Any], folder: Path) -> None:
    """Write `digests.npy` and its hash."""
    index = read_index(folder, manifest)
    numbers = range(len(manifest["shards"]))
    parts = [folder / f"{number:05d}.digests" for number in numbers]

    def look(number: int) -> None:
        if parts[number].is_file():
            return
        tar = fetch_shard(objects, manifest["shards"][number])
        first, end = np.searchsorted(index[:, 0], (number, number + 1))
        digests = [hashlib.sha256(tar[offset : offset + size]).digest() for _, offset, size in index[first:end]]
        atomic_write(parts[number], b"".join(digests))

    for _ in track(in_order(look, numbers, threads=SHARDS, ahead=SHARDS), "Checking shards", len(numbers)):
        pass
    every = np.frombuffer(b"".join(part.read_bytes() for part in parts), np.uint8).reshape(-1, DIGEST_BYTES)
    with atomic_file(folder / DIGESTS) as temporary, open(temporary, "wb") as file:
        np.save(file, every, allow_pickle=False)
    write_json(folder / LOCATION, {"url": objects.url, "digests": sha256(folder / DIGESTS)})
    for part in parts:
        part.unlink()
