"""Parts of shards from S3, kept on this machine's disk: `.cotam/cache/shards/`, as files with holes.

Nothing says what is there: readers know the SHA-256 of every picture, and a hole or a damaged place has another one. So
any number of processes may read and write at once, and be killed. What is kept is the data set's first shards, as many
as fit: an epoch wants every picture once in no order, so that throwing out what was read longest ago would keep what is
wanted last. The rest is fetched in every epoch anew.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock

from components import paths
from components.errors import CotamError
from components.files import others_by_use

BLOCK = 4 << 20  # bytes that are fetched at once for the cache
DEFAULT_GB = 20.0
_LOCKS = 64  # files


def limit() -> int:
    """Bytes that all data sets together may take: COTAM_SHARD_CACHE gigabytes.

    Raises:
        CotamError: it is no number.
    """
    said = os.environ.get("COTAM_SHARD_CACHE", "") or str(DEFAULT_GB)
    try:
        gigabytes = float(said)
    except ValueError:
        gigabytes = -1.0
    if not 0 <= gigabytes < float("inf"):
        raise CotamError(f"COTAM_SHARD_CACHE is {said!r}: set it to a number of gigabytes, 0 for no cache.")
    return int(gigabytes * 1e9)


class ShardCache:
    """The part of one data set that is kept."""

    def __init__(self, fingerprint: str, shard_bytes: Sequence[int]):
        """Remove other data sets' parts, those used longest ago first, as far as this one needs their room.

        Args:
            fingerprint: names the data set.
            shard_bytes: sizes of its shards.
        """
        room, self._kept = limit(), 0
        for size in shard_bytes:
            if size > room:
                break
            room -= size
            self._kept += 1
        self._folder = paths.STATE / "cache/shards" / fingerprint[:16]
        if self._kept:
            self._folder.mkdir(parents=True, exist_ok=True)
            os.utime(self._folder)
        for other in others_by_use(self._folder):
            room -= _taken(other)
            if room < 0:
                shutil.rmtree(other, ignore_errors=True)

    def keeps(self, shard: int) -> bool:
        """Whether what is read from this shard stays here."""
        return shard < self._kept

    def read(self, shard: int, places: Sequence[tuple[int, int]]) -> list[bytes] | None:
        """The bytes at (offset, size) of a shard; not what the shard has there where nothing was written yet."""
        try:
            with open(self._path(shard), "rb") as file:
                return [os.pread(file.fileno(), size, offset) for offset, size in places]
        except OSError:
            return None

    def write(self, shard: int, offset: int, content: bytes) -> None:
        """Keep what a shard has at `offset`. On a full disk nothing further is kept."""
        try:
            file = os.open(self._path(shard), os.O_WRONLY | os.O_CREAT, 0o666)
            try:
                os.pwrite(file, content, offset)
            finally:
                os.close(file)
        except OSError:
            self._kept = 0

    @contextlib.contextmanager
    def lock(self, number: int) -> Iterator[None]:
        """Held by one thread of one process at a time, for each `number`: so that nothing is fetched twice."""
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # a full disk; then it is fetched twice
                stack.enter_context(FileLock(self._folder / f"{number % _LOCKS:02d}.lock"))
            yield

    def _path(self, shard: int) -> Path:
        return self._folder / f"{shard:05d}.part"


def _taken(folder: Path) -> int:
    """Bytes on the disk of a folder's files, without their holes."""
    try:
        return sum(path.stat().st_blocks * 512 for path in folder.iterdir())
    except FileNotFoundError:  # another process of this training removes it, too
        return 0
