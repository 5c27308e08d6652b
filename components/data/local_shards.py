"""Shards on a disk: each is hashed when something is first read from it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

from components.data.manifest import Index
from components.errors import CotamError
from components.files import sha256


def check_file(path: Path, expected: str) -> None:
    """Raise CotamError unless `expected` is the SHA-256 of the file."""
    if sha256(path) != expected:
        raise CotamError(
            f"{path} is not what was written (its SHA-256 differs); restore it (`dvc pull`) or shard the images again."
        )


class LocalShards:
    """The bytes of the pictures in a folder's shards: a damaged disk must not become a slightly different result."""

    threads = min(8, os.cpu_count() or 1)  # decoding is what takes time

    def __init__(self, folder: Path, manifest: dict[str, Any], index: Index):
        self._folder, self._shards, self._index = folder, manifest["shards"], index
        self._checked: set[int] = set()
        self._lock = Lock()

    def read(self, first: int, count: int) -> list[bytes]:
        """Pictures `first` ... `first + count - 1`, which lie in one shard.

        Raises:
            CotamError: the shard is not what was written.
        """
        rows = self._index[first : first + count]
        with self.shard(int(rows[0, 0])) as path, open(path, "rb") as tar:
            return [os.pread(tar.fileno(), int(size), int(offset)) for _, offset, size in rows]

    @contextmanager
    def shard(self, number: int) -> Iterator[Path]:
        """A whole shard as a file that has been checked.

        Raises:
            CotamError: it is not what was written.
        """
        entry = self._shards[number]
        path = self._folder / entry["file"]
        with self._lock:
            if number not in self._checked:
                check_file(path, entry["sha256"])
                self._checked.add(number)
        yield path
