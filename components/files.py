"""Files that are either whole or absent.

A run may be killed at any moment and a disk may fill up. Everything the project writes therefore goes to a temporary
name in the same folder, reaches the disk, and only then takes its real name.
"""

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from components.errors import CotamError

_WRITERS = 16  # files that are made to reach the disk at the same time


def temporary_name(path: Path) -> Path:
    """A free name beside `path`: same file system (so that a rename is atomic), hidden, ignored by git."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary path to write a file to; it becomes `path` when the block ends well, else it is removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_dir(path: str | Path) -> Iterator[Path]:
    """Give an empty temporary folder; it replaces `path` when the block ends well, and is removed otherwise."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    temporary.mkdir()
    try:
        yield temporary
        replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace(temporary: Path, path: Path) -> None:
    """Give a finished file or folder its real name, after everything in it has reached the disk.

    A folder cannot be renamed over another one, so an old folder steps aside first and is removed last.
    """
    written = list(temporary.rglob("*")) if temporary.is_dir() else []
    with ThreadPoolExecutor(_WRITERS) as pool:  # one after the other, 8,000 pictures take most of a minute
        list(pool.map(_sync, [*written, temporary]))
    path.parent.mkdir(parents=True, exist_ok=True)
    old = None
    if path.is_dir() and not path.is_symlink():
        old = temporary_name(path)
        os.replace(path, old)
    os.replace(temporary, path)
    _sync(path.parent)
    if old is not None:
        shutil.rmtree(old)


def others_by_use(folder: Path) -> list[Path]:
    """The folders beside `folder`, hidden ones too, that were touched last first; those that vanish are left out."""
    times = []
    for other in folder.parent.iterdir() if folder.parent.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):  # another process removes them, too
            if other != folder and other.is_dir():
                times.append((other.stat().st_mtime, other))
    return [other for _, other in sorted(times, reverse=True)]


def atomic_write(path: str | Path, content: bytes | str) -> None:
    """Write `content` (text as UTF-8) so that `path` holds all of it or what it held before."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON that is the same bytes for the same value: sorted keys, no NaN (which JSON does not have)."""
    atomic_write(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read JSON.

    Raises:
        CotamError: the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CotamError(f"{path} does not exist.") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise CotamError(f"{path} is not valid JSON ({error}); restore it or make it again.") from None


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_tree(folder: str | Path) -> str:
    """SHA-256 over the relative names and bytes of all files below `folder`, whatever their times or order on disk."""
    folder = Path(folder)
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{sha256(path)}\n".encode())
    return digest.hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
