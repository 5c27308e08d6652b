"""Background processes that can always be found again.

Each one carries its name and its project in its environment, and hands both down to whatever it starts. So what a
killed worker or a killed demo has left behind is found and ended from that mark alone, and nothing else is touched.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from components.files import read_json, write_json

PROJECT_MARK = "COTAM_SERVICES_OF"
NAME_MARK = "COTAM_SERVICE"
TERM_SECONDS = 8.0

_LIBC = ctypes.CDLL(None) if sys.platform.startswith("linux") else None


def child_dies_with_parent() -> None:
    """For `preexec_fn`: the kernel kills the new process when the thread that started it ends (Linux).

    Between fork and exec nothing may be imported, hence not `components.locks.die_with_parent`.
    """
    if _LIBC is not None:
        _LIBC.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG


@dataclass(frozen=True)
class Identity:
    """A process, told apart from a later one with the same number by when it started (seconds since the epoch)."""

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> "Identity":
        """Raises psutil.NoSuchProcess: no process has that number."""
        return cls(pid, psutil.Process(pid).create_time())

    def alive(self) -> bool:
        """Whether that very process still runs (a zombie does not)."""
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.started) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


@dataclass(frozen=True)
class Service:
    """What `.cotam/run/<name>.json` says of a started service."""

    name: str
    process: Identity
    owner: Identity | None  # ends with this process; None: kept until `down`
    url: str | None
    log: str

    def save(self, folder: Path) -> None:
        """Write it where `load` finds it."""
        write_json(folder / f"{self.name}.json", asdict(self))


def load(folder: Path, name: str) -> Service | None:
    """The service as it was started, alive or not; None when it never was."""
    path = folder / f"{name}.json"
    if not path.exists():
        return None
    said = read_json(path)
    owner = Identity(**said["owner"]) if said["owner"] else None
    return Service(said["name"], Identity(**said["process"]), owner, said["url"], said["log"])


def start(name: str, command: list[str], project: Path, log: Path, env: dict[str, str]) -> Identity:
    """Start `command` in a session of its own, marked as `name` of `project`, its output appended to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **env, PROJECT_MARK: str(project), NAME_MARK: name}
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=project,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Identity.of(process.pid)


def marked(project: Path, name: str) -> list[psutil.Process]:
    """Every running process that descends from the service `name` of `project`, this one excepted."""
    found = []
    for process in psutil.process_iter():
        try:
            mark = process.environ()
            if (mark.get(PROJECT_MARK), mark.get(NAME_MARK)) == (str(project), name) and process.pid != os.getpid():
                found.append(process)
        except psutil.Error:  # ended meanwhile, or another user's
            continue
    return found


def end(project: Path, name: str) -> int:
    """End the service and all that it started: politely, then for certain. Returns how many processes there were."""
    processes = marked(project, name)
    for process in processes:
        _signal(process, "terminate")
    _, stubborn = psutil.wait_procs(processes, timeout=TERM_SECONDS)
    deadline = time.monotonic() + TERM_SECONDS
    while (left := [*stubborn, *marked(project, name)]) and time.monotonic() < deadline:
        for process in left:
            _signal(process, "kill")
        _, stubborn = psutil.wait_procs(left, timeout=2)
    return len(processes)


def _signal(process: psutil.Process, how: str) -> None:
    try:
        getattr(process, how)()
    except psutil.Error:  # already gone
        return
