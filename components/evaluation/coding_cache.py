"""Every image coded once: a folder of streams, found again by what was coded and by what.

However many questions, benchmarks and MLLMs ask about an image, its stream at a quality is the same. The name of a
stream's file is the SHA-256 of all that it depends on: pixels, codec, quality, guidance, and where it was computed.

Any number of processes may share a folder, also while one of them is killed. An entry is written under a temporary
name, then renamed; it begins with a hash of itself, and one that is damaged counts as missing. Two processes that want
the same new image at the same time: one codes it, the other waits.
"""

import contextlib
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from components.codec.container import VERSION
from components.errors import CotamError
from components.files import temporary_name
from components.paths import CODING_CACHE

if TYPE_CHECKING:
    from components.codec import Codec

LIMIT = 4 << 30  # bytes
PORTION = 32  # images that are looked up, and coded, together

_HASH = 32  # bytes of SHA-256 at an entry's start
_STRIPES = 3  # hex digits of a key that choose its lock: at most 4096 files, and two keys rarely share one
_FORGOTTEN = 3600  # seconds after which a temporary file belongs to a process that was killed


class CodingCache:
    """A folder of streams.

    Attributes:
        encoded: images that this object had coded.
        found: images whose stream was there already.
    """

    def __init__(self, folder: str | Path = CODING_CACHE, limit: int = LIMIT):
        """Open a folder, or make it.

        Args:
            folder: no other files should lie in it.
            limit: bytes; when there are more, the streams that were used longest ago are removed.

        Raises:
            CotamError: it is a file, or in one. One that cannot be written to costs the cache, not the evaluation.
        """
        self.folder = Path(folder)
        self.limit = limit
        self.encoded = self.found = 0
        self._unswept: int | None = None  # bytes written since the folder was last swept; None: not yet
        self._writes = True
        try:
            (self.folder / "locks").mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise CotamError(f"{folder} cannot hold a cache ({error.strerror}); name another folder.") from None
        except OSError as error:
            self._give_up(error)

    def encode(
        self,
        codec: "Codec",
        images: Sequence[NDArray[np.uint8]],
        quality: int,
        guide: Callable[[Sequence[NDArray[np.uint8]]], Sequence[NDArray[np.int8]]] | None = None,
    ) -> list[bytes]:
        """What `codec.encode` gives, from the folder where it is there.

        Args:
            codec: any.
            images: uint8 (H, W, 3), of any sizes.
            quality: of all.
            guide: None, or what makes level maps of images; it has an `identity` (`components.evaluation.coding`), and
                is asked about images that are not there yet only.
        """
        streams: list[bytes] = []
        for start in range(0, len(images), PORTION):
            streams += self._portion(codec, images[start : start + PORTION], quality, guide)
        return streams

    def _portion(self, codec: "Codec", images: Sequence[NDArray[np.uint8]], quality: int, guide) -> list[bytes]:
        settings = _settings(codec, quality, guide)
        keys = [_key(settings, image) for image in images]
        wanted = dict(zip(keys, images, strict=True))
        streams = {key: stream for key in wanted if (stream := self._read(key)) is not None}
        missing = [key for key in wanted if key not in streams]
        with self._locked(missing):
            for key in missing:  # another process may have been here while this one waited
                if (stream := self._read(key)) is not None:
                    streams[key] = stream
            missing = [key for key in missing if key not in streams]
            if missing:
                portion = [wanted[key] for key in missing]
                levels = None if guide is None else guide(portion)
                for key, stream in zip(missing, codec.encode(portion, quality, levels), strict=True):
                    self._write(key, stream)
                    streams[key] = stream
        self.encoded += len(missing)
        self.found += len(images) - len(missing)
        self._sweep_if_due()
        return [streams[key] for key in keys]

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key

    @contextlib.contextmanager
    def _locked(self, keys: Sequence[str]) -> Iterator[None]:
        """Keep other processes from coding the same images. In order, so that no two wait for each other."""
        with contextlib.ExitStack() as stack:
            try:
                for stripe in sorted({key[:_STRIPES] for key in keys}) if self._writes else ():
                    stack.enter_context(FileLock(self.folder / "locks" / stripe))
            except OSError as error:
                self._give_up(error)
            yield

    def _give_up(self, error: OSError) -> None:
        """Write no more, and say so."""
        self._writes = False
        print(f"{self.folder} cannot be written ({error.strerror}): coding goes on without it.", file=sys.stderr)

    def _read(self, key: str) -> bytes | None:
        """A stream; None if it is not there, or is damaged (and then no longer there)."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        stream = content[_HASH:]
        if content[:_HASH] != _digest(key, stream):
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # used now: removed last
        return stream

    def _write(self, key: str, stream: bytes) -> None:
        """Keep a stream. A full disk costs the entry, not the evaluation."""
        if not self._writes:
            return
        path = self._path(key)
        temporary = temporary_name(path)
        try:
            path.parent.mkdir(exist_ok=True)
            # Not synced to the disk, as results are: what a power cut damages is seen and coded again.
            temporary.write_bytes(_digest(key, stream) + stream)
            os.replace(temporary, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            self._give_up(error)
        if self._unswept is not None:
            self._unswept += len(stream) + _HASH

    def _sweep_if_due(self) -> None:
        if self.encoded and (self._unswept is None or self._unswept > self.limit // 16):
            self.sweep()

    def sweep(self) -> None:
        """Remove what was used longest ago until nine tenths of the limit are left, if there is more than that."""
        self._unswept = 0
        entries, total, now = [], 0, time.time()
        for path in self.folder.glob("??/*"):
            with contextlib.suppress(OSError):
                status = path.stat()
                if path.name.endswith(".tmp"):
                    if now - status.st_mtime > _FORGOTTEN:
                        path.unlink()
                    continue
                entries.append((status.st_mtime_ns, status.st_size, path))
                total += status.st_size
        if total <= self.limit:
            return
        for _, size, path in sorted(entries):
            if total <= 0.9 * self.limit:
                return
            with contextlib.suppress(OSError):
                path.unlink()
            total -= size


def _settings(codec: "Codec", quality: int, guide: Any) -> bytes:
    """All that a stream depends on but the image; another version of torch may sum in another order."""
    import torch

    known = {
        "format": VERSION,
        "codec": codec.model_id,
        "transforms": codec.arithmetic,
        "device": codec.device.type,
        "torch": torch.__version__,
        "quality": int(quality),
        "guidance": None if guide is None else guide.identity,
    }
    return json.dumps(known, sort_keys=True).encode()


def _key(settings: bytes, image: NDArray[np.uint8]) -> str:
    digest = hashlib.sha256(settings)
    digest.update(f"\0{image.shape}\0".encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def _digest(key: str, stream: bytes) -> bytes:
    return hashlib.sha256(key.encode() + stream).digest()
