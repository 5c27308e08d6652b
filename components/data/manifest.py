"""What a folder of shards is: tar files, `index.npy` (where each picture lies), and `manifest.json` (what is there).

manifest.json holds the SHA-256 of every other file, so that its own hash names the whole folder. docs/data.md
describes every key. Where the tar files lie on S3 instead, `location.json` says where, and `digests.npy` what each
picture must be (`linking.py`).
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from components.errors import CotamError
from components.files import read_json, sha256

FORMAT = "cotam-shards"
VERSION = 1
MANIFEST = "manifest.json"
INDEX = "index.npy"
LOCATION = "location.json"
DIGESTS = "digests.npy"
DIGEST_BYTES = 32  # of SHA-256

Index = np.ndarray
"""int64, one row per picture: number of the shard, offset of the first byte in it, number of bytes."""


def is_shards(folder: Path) -> bool:
    """Whether `folder` holds shards that this project wrote (of any version)."""
    try:
        return json.loads((folder / MANIFEST).read_bytes()).get("format") == FORMAT
    except (OSError, ValueError, AttributeError):
        return False


def is_link(folder: Path) -> bool:
    """Whether the shards of `folder` lie on S3 (`cotam shard --link`)."""
    return (folder / LOCATION).is_file()


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read and check manifest.json, and that the files it names are there with the sizes it names (shards on S3 apart).

    Raises:
        CotamError: the folder is not one of shards, is of another version, or lacks something.
    """
    if not (folder / MANIFEST).is_file():
        raise CotamError(f"{folder} holds no shards; make them with `cotam shard IMAGES -o {folder}`.")
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise CotamError(f"{folder / MANIFEST} does not describe shards; give a folder that `cotam shard` wrote.")
    if manifest.get("version") != VERSION:
        raise CotamError(
            f"{folder} holds shards of version {manifest.get('version')}, but this cotam reads version {VERSION}; "
            "shard the images again."
        )
    for entry in (manifest["index"], *([] if is_link(folder) else manifest["shards"])):
        path = folder / entry["file"]
        size = path.stat().st_size if path.is_file() else None
        if size != entry["bytes"]:
            found = "is missing" if size is None else f"has {size} bytes instead of {entry['bytes']}"
            raise CotamError(f"{path} {found}; restore it (`dvc pull`) or shard the images again.")
    return manifest


def read_index(folder: Path, manifest: dict[str, Any]) -> Index:
    """Map index.npy into memory.

    Raises:
        CotamError: it is not an index of that many pictures.
    """
    return _read_array(folder / INDEX, (manifest["images"], 3), np.int64)


def read_digests(folder: Path, manifest: dict[str, Any]) -> np.ndarray:
    """Map digests.npy of a link into memory: uint8 (N, 32), the SHA-256 of every picture's bytes.

    Raises:
        CotamError: it is not what was written.
    """
    path = folder / DIGESTS
    if not path.is_file() or sha256(path) != read_json(folder / LOCATION).get("digests"):
        raise CotamError(f"{path} is not what was written; restore it (`dvc pull`) or link the shards again.")
    return _read_array(path, (manifest["images"], DIGEST_BYTES), np.uint8)


def _read_array(path: Path, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:
        array = np.empty(0)
    if array.shape != shape or array.dtype != dtype:
        raise CotamError(f"{path} is damaged; restore it (`dvc pull`) or shard the images again.")
    return array
