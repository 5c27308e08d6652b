"""What a folder of shards is: tar files, `index.npy` (where each picture lies), and `manifest.json` (what is there).

manifest.json holds the SHA-256 of every other file, so that its own hash names the whole folder. docs/data.md
describes every key.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from components.errors import CotamError
from components.files import read_json

FORMAT = "cotam-shards"
VERSION = 1
MANIFEST = "manifest.json"
INDEX = "index.npy"

Index = np.ndarray
"""int64, one row per picture: number of the shard, offset of the first byte in it, number of bytes."""


def is_shards(folder: Path) -> bool:
    """Whether `folder` holds shards that this project wrote (of any version)."""
    try:
        return json.loads((folder / MANIFEST).read_bytes()).get("format") == FORMAT
    except (OSError, ValueError, AttributeError):
        return False


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read and check manifest.json, and that the files it names are there with the sizes it names.

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
    for entry in (manifest["index"], *manifest["shards"]):
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
    try:
        index = np.load(folder / INDEX, mmap_mode="r", allow_pickle=False)
    except ValueError:
        index = np.empty(0)
    if index.shape != (manifest["images"], 3) or index.dtype != np.int64:
        raise CotamError(f"{folder / INDEX} is damaged; restore it (`dvc pull`) or shard the images again.")
    return index
