"""A hidden folder in which one run works at a time; what it can be gone on from stays there, and else it vanishes."""

import errno
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from components.errors import CotamError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def only_run(work: Path, target: Path, wait: bool = False) -> Iterator[None]:
    """Make the folder `work`, and hold it while the block lasts; if it is empty then, it is removed.

    Args:
        work: where the block works.
        target: what comes of it.
        wait: for another run that holds it, saying so once.

    Raises:
        CotamError: another run holds it, and is not waited for.
    """
    work.mkdir(parents=True, exist_ok=True)
    lock = FileLock(work / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            raise CotamError(f"Another run is writing {target}; wait for it or choose another folder.") from None
        print(f"Waiting for another run that is writing {target}.", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
        # Not before: on a network disk, a file that is open stays in its folder under another name.
        with suppress(OSError):
            work.rmdir()


def clear(work: Path) -> None:
    """Remove all that is in a folder which this run holds."""
    for path in work.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextmanager
def writing(target: Path, work: Path, wait: bool = False) -> Iterator[None]:
    """Hold `work`, where the block makes shards that become `target`.

    Afterwards nothing is left of it, or after an error finished shards and unpacked tables, if there are any.

    Args:
        target, work, wait: as in `only_run`.

    Raises:
        CotamError: there is no room, or another run holds it.
    """
    try:
        with only_run(work, target, wait):
            try:
                yield
            except BaseException:
                if not any(work.glob("shards/*.tar")) and not any(work.glob("tables/[!.]*/")):
                    clear(work)
                raise
            clear(work)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise CotamError(
            f"{target} cannot be written ({error.strerror}); free some room and run the same again, which goes on from "
            "the last finished shard."
        ) from None
