"""Shards on S3, of which a folder holds the manifest alone (`linking.py`): pictures come by ranges of bytes.

Every picture is compared with its SHA-256 in `digests.npy` before anyone sees it. That was taken from a shard whose own
SHA-256 was the manifest's, so what is read is what local shards would have given, or an error.
"""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from components.data.manifest import LOCATION, Index, read_digests
from components.data.s3 import CONNECTIONS, Prefix
from components.data.shard_cache import BLOCK, ShardCache
from components.errors import CotamError
from components.files import read_json


class LinkedShards:
    """The bytes of the pictures in shards on S3; safe in threads and in forked workers."""

    threads = CONNECTIONS  # waiting for the network is what takes time

    def __init__(self, folder: Path, manifest: dict[str, Any], index: Index, fingerprint: str):
        """Nothing is asked of the store yet.

        Raises:
            CotamError: the folder is not what `cotam shard --link` wrote.
        """
        self._shards, self._index = manifest["shards"], index
        self._digests = read_digests(folder, manifest)
        self._objects = Prefix(read_json(folder / LOCATION)["url"])
        self._ends = np.cumsum([entry["images"] for entry in self._shards])
        self._cache = ShardCache(fingerprint, [entry["bytes"] for entry in self._shards])

    def read(self, first: int, count: int) -> list[bytes]:
        """Pictures `first` ... `first + count - 1`, which lie in one shard.

        Raises:
            CotamError: the store gives something else than was linked, or nothing.
        """
        shard = int(self._index[first, 0])
        if not self._cache.keeps(shard):
            return self._fetch(first, count)[1]
        found = self._cached(first, count)
        if found is None:
            # What is kept is taken in large pieces, which cost less than their pictures one by one.
            start, whole = self._block(first, count)
            with self._cache.lock(start):
                found = self._cached(first, count)  # another process may have taken it meanwhile
                if found is None:
                    span, pictures = self._fetch(start, whole)
                    self._cache.write(shard, int(self._index[start, 1]), span)
                    found = pictures[first - start : first - start + count]
        return found

    @contextmanager
    def shard(self, number: int) -> Iterator[Path]:
        """A whole shard as a file that has been checked, and is removed when the block ends.

        Raises:
            CotamError: it is not what was linked, or cannot be fetched.
        """
        with tempfile.TemporaryDirectory(prefix="cotam-shard-") as folder:
            path = Path(folder) / "shard.tar"
            path.write_bytes(fetch_shard(self._objects, self._shards[number]))
            yield path

    def _cached(self, first: int, count: int) -> list[bytes] | None:
        """The pictures if the cache has them all, undamaged."""
        shard = int(self._index[first, 0])
        found = self._cache.read(shard, [(int(row[1]), int(row[2])) for row in self._index[first : first + count]])
        return found if found is not None and self._are_right(first, found) else None

    def _fetch(self, first: int, count: int) -> tuple[bytes, list[bytes]]:
        """What lies between the beginning of a picture and the end of a later one, and these pictures."""
        rows = self._index[first : first + count]
        offset, end = int(rows[0, 1]), int(rows[-1, 1] + rows[-1, 2])
        name = self._shards[int(rows[0, 0])]["file"]
        for _ in range(2):  # a damage on the way is not there the second time
            span = self._objects.read(name, (offset, end - offset))
            pictures = [span[int(row[1]) - offset : int(row[1] + row[2]) - offset] for row in rows]
            if self._are_right(first, pictures):
                return span, pictures
        raise _changed(self._objects, name)

    def _are_right(self, first: int, pictures: list[bytes]) -> bool:
        digests = self._digests[first : first + len(pictures)]
        return all(
            hashlib.sha256(picture).digest() == digest.tobytes()
            for picture, digest in zip(pictures, digests, strict=True)
        )

    def _block(self, first: int, count: int) -> tuple[int, int]:
        """First picture and number of pictures of the blocks of a shard that these pictures begin in."""
        shard = int(self._index[first, 0])
        start = int(self._ends[shard]) - self._shards[shard]["images"]
        blocks = self._index[start : self._ends[shard], 1] // BLOCK
        low = np.searchsorted(blocks, blocks[first - start], "left")
        high = np.searchsorted(blocks, blocks[first - start + count - 1], "right")
        return start + int(low), int(high - low)


def fetch_shard(objects: Prefix, entry: dict[str, Any]) -> bytes:
    """A whole shard, of which `entry` is what the manifest says.

    Raises:
        CotamError: it is not what the manifest says, or cannot be fetched.
    """
    for _ in range(2):
        content = objects.read(entry["file"])
        if hashlib.sha256(content).hexdigest() == entry["sha256"]:
            return content
    raise _changed(objects, entry["file"])


def _changed(objects: Prefix, name: str) -> CotamError:
    return CotamError(
        f"{objects.url}/{name} is not what the manifest says (its SHA-256 differs); put the right shard there, or link "
        "the shards again."
    )
