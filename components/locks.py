"""Never two processes in one stage.

A stage's command takes a lock, so that a second one waits; and it dies with the process that started it, so that an
orphan left by a killed driver never writes beside its successor.
"""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

from filelock import FileLock, Timeout

from components.paths import Paths

_PR_SET_PDEATHSIG = 1
_SHELLS = {"sh", "dash", "bash", "zsh", "ksh"}


@contextlib.contextmanager
def stage_lock(name: str, paths: Paths) -> Iterator[None]:
    """Hold a checkout's lock of the stage `name`; wait for it, saying so once, while another process holds it.

    The kernel frees the lock when its holder dies, however it dies.
    """
    paths.locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(paths.locks / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"Waiting for another process that is running {name}.", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def die_with_parent() -> None:
    """Have the kernel kill this process (SIGKILL) when its parent ends (Linux; elsewhere this does nothing).

    DVC starts a command through a shell. Most shells replace themselves with the command; where one stays between,
    it would outlive a killed DVC, so its own parent is watched too.
    """
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the call above
        os.kill(os.getpid(), signal.SIGKILL)
    _watch_beyond_shell(parent)


def _watch_beyond_shell(parent: int) -> None:
    import psutil

    try:
        shell = psutil.Process(parent)
        command = shell.cmdline()
        driver = shell.parent()
        if driver is None or shell.name() not in _SHELLS or "-c" not in command[1:2]:
            return
    except psutil.Error:
        return

    def watch() -> None:
        while driver.is_running() and driver.status() != psutil.STATUS_ZOMBIE:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="watch-driver").start()
