"""Where pictures come from: a folder, tar files of the WebDataset kind (CC3M as img2dataset writes it), or S3.

A source says what it has (a sorted list of names with sizes) and gives the bytes of one. It does not look into them.
"""

import hashlib
import io
import os
import stat
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from components.data.images import MAXIMUM_BYTES, UnusableImageError, read_bytes
from components.data.s3 import Prefix
from components.errors import CotamError

IMAGE_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("apng", "avif", "bmp", "dib", "gif", "heic", "heif", "j2k", "jfif", "jp2", "jpe", "jpeg", "jpg", "jpx"),
        *("pbm", "pgm", "png", "pnm", "ppm", "tif", "tiff", "webp"),
    )
)
"""Names that promise an image. Other files are counted and not opened; a name without a suffix is tried."""


@dataclass(frozen=True, slots=True)
class Item:
    """One picture that a source has.

    Attributes:
        name: relative to the source, with forward slashes; a tar's members are named "TAR/MEMBER".
        size: bytes.
        stamp: changes when the content does (modification time, or ETag).
        place: what `Source.read` needs to find it.
    """

    name: str
    size: int
    stamp: str
    place: Any = field(compare=False)


@dataclass(frozen=True)
class Listing:
    """What a source has: `items` sorted by name, and how many other files there are by suffix."""

    items: list[Item]
    ignored: dict[str, int]

    @cached_property
    def key(self) -> str:
        """Sixteen hex digits that change when any item is added, removed or changed."""
        digest = hashlib.sha256()
        for item in self.items:
            digest.update(f"{item.name}\0{item.size}\0{item.stamp}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()[:16]


class Source(Protocol):
    """A place that has pictures."""

    def list(self) -> Listing:
        """All that is there.

        Raises:
            CotamError: it is missing, may not be read, or the network failed.
        """

    def read(self, item: Item) -> bytes:
        """The bytes of one item; safe to call from several threads.

        Raises:
            UnusableImageError: this one cannot be used.
            CotamError: the source itself failed.
        """


def open_source(source: str | Path, without: Path | None = None) -> Source:
    """The source that a person names.

    Args:
        source: a folder, or s3://BUCKET/PREFIX (the endpoint and the credentials are those of the AWS tools:
            AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_PROFILE, ...).
        without: a folder inside a local source that is left out: the one that is being written.
    """
    if str(source).startswith("s3://"):
        return S3Source(str(source))
    if "://" in str(source):
        raise CotamError(f"{source} is neither a folder nor an s3:// address; give one of these.")
    return FolderSource(Path(source).expanduser(), without)


class FolderSource:
    """A folder with all that is below it; hidden files are left out, links to files are followed."""

    def __init__(self, folder: Path, without: Path | None = None):
        self.folder = folder
        self.without = without.resolve() if without else None

    def list(self) -> Listing:
        """See `Source`."""
        if not self.folder.exists():
            raise CotamError(f"{self.folder} does not exist; give a folder of images.")
        if not self.folder.is_dir():
            raise CotamError(f"{self.folder} is a file; give the folder that holds it.")
        items: list[Item] = []
        ignored: Counter[str] = Counter()
        for path in self._files():
            name = path.relative_to(self.folder).as_posix()
            suffix = path.suffix.lower()
            if suffix == ".tar":
                members, others = _tar_members(path, name)
                items += members
                ignored += others
            elif suffix in IMAGE_SUFFIXES or not suffix:
                try:
                    status = path.stat()
                except OSError:  # a link to nothing, say: reading it fails, and it is named among the skipped
                    items.append(Item(name, 0, "", path))
                    continue
                if stat.S_ISREG(status.st_mode):
                    items.append(Item(name, status.st_size, str(status.st_mtime_ns), path))
                else:  # a pipe would be waited for
                    ignored["not a file"] += 1
            else:
                ignored[suffix] += 1
        return Listing(sorted(items, key=lambda item: item.name), dict(sorted(ignored.items())))

    def read(self, item: Item) -> bytes:
        """See `Source`."""
        try:
            if isinstance(item.place, Path):
                return read_bytes(item.place)
            path, offset = item.place
            if item.size > MAXIMUM_BYTES:
                raise UnusableImageError(f"has more than {MAXIMUM_BYTES >> 20} MiB, which is no image that can be used")
            with open(path, "rb") as tar:
                tar.seek(offset)
                return tar.read(item.size)
        except OSError as error:
            raise CotamError(
                f"{self.folder / item.name} cannot be read ({error.strerror}); run again to go on from here."
            ) from None

    def _files(self) -> Iterator[Path]:
        def fail(error: OSError) -> None:
            raise CotamError(f"The folder {error.filename} cannot be read ({error.strerror}).")

        for base, folders, names in os.walk(self.folder, onerror=fail):
            here = Path(base)
            folders[:] = [
                name for name in folders if not name.startswith(".") and (here / name).resolve() != self.without
            ]
            yield from (here / name for name in names if not name.startswith("."))


def _tar_members(path: Path, name: str) -> tuple[list[Item], Counter[str]]:
    stamp = str(path.stat().st_mtime_ns)
    items, ignored = [], Counter()
    try:
        with tarfile.open(path) as tar:
            if not isinstance(tar.fileobj, io.BufferedReader):
                raise CotamError(f"{path} is compressed; unpack it with gunzip, bunzip2 or unxz first.")
            for member in tar:
                suffix = PurePosixPath(member.name).suffix.lower()
                if not member.isfile():
                    continue
                if suffix in IMAGE_SUFFIXES:
                    place = (path, member.offset_data)
                    items.append(Item(f"{name}/{member.name}", member.size, f"{stamp}:{member.offset_data}", place))
                else:
                    ignored[suffix] += 1
            if path.stat().st_size < tar.offset + tarfile.BLOCKSIZE:  # tarfile takes this for an end
                raise EOFError("it has no end")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise CotamError(f"{path} is damaged or cannot be read ({error}); fetch it again.") from None
    return items, ignored


class S3Source:
    """The objects below s3://BUCKET/PREFIX."""

    def __init__(self, url: str):
        self.url = url
        self._objects = Prefix(url)

    def list(self) -> Listing:
        """See `Source`."""
        items: list[Item] = []
        ignored: Counter[str] = Counter()
        for name, size, etag in self._objects.list():
            path = PurePosixPath(name)
            if not name or name.endswith("/") or any(part.startswith(".") for part in path.parts):
                continue
            if path.suffix.lower() in IMAGE_SUFFIXES or not path.suffix:
                items.append(Item(name, size, etag, name))
            else:
                ignored[path.suffix.lower()] += 1
        if ".tar" in ignored and not items:
            raise CotamError(
                f"{self.url} holds tar files, which are read from a folder only; copy them here first, or give --link "
                "if `cotam shard` wrote them."
            )
        return Listing(sorted(items, key=lambda item: item.name), dict(sorted(ignored.items())))

    def read(self, item: Item) -> bytes:
        """See `Source`."""
        if item.size > MAXIMUM_BYTES:
            raise UnusableImageError(f"has more than {MAXIMUM_BYTES >> 20} MiB, which is no image that can be used")
        # Another content than the one that was listed would make shards that nobody can make again.
        return self._objects.read(item.name, etag=item.stamp)
