"""Several processes that train one model together, each with a share of every batch (and a GPU of its own).

How many there are is a matter of the machine, not of the experiment, so the machine's environment says it:

- COTAM_PROCESSES: how many a training step is shared out to on this machine; 1 if it is not set.
- COTAM_MICRO_BATCH: how many examples a process computes with at once; gradients of a batch's portions are summed
  before each step of the optimizer. All of its share if it is not set.

Neither changes what is learned but for the order of sums. Processes of one machine meet by files and speak over its
loopback, so no other machine can reach them. Over several machines `torchrun` starts the processes (docs/cluster.md),
and its variables (RANK and so on) are heeded here; they meet by a port that torch opens to the network.
"""

import os
import signal
import socket
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import CotamError

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

RESTARTS = 3
MEETING = "COTAM_MEETING"  # the folder by whose files the processes of one machine meet; `launch` sets it
_LONG = timedelta(days=365)


def rank() -> int:
    """Which of the processes this is; 0 is the one that writes."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def started() -> bool:
    """Whether this is one of several processes, or could be: torchrun has started it."""
    return "RANK" in os.environ


def join() -> None:
    """Make the GPU of this process the current one, and meet the others if this machine has all of them.

    Where `torchrun` has started the processes, Accelerate has them meet, by a port.
    """
    if not started():
        return
    import torch

    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if folder := os.environ.get(MEETING):
        torch.distributed.init_process_group(
            "nccl" if on_gpu else "gloo", init_method=f"file://{folder}/all", rank=rank(), world_size=count()
        )


def wanted() -> int:
    """How many processes this machine gives to a training.

    Raises:
        CotamError: COTAM_PROCESSES is no number.
    """
    return _number("COTAM_PROCESSES") or 1


def micro_batch() -> int | None:
    """How many examples fit into a process at once; None: all.

    Raises:
        CotamError: COTAM_MICRO_BATCH is no number.
    """
    return _number("COTAM_MICRO_BATCH")


class FirstWord:
    """Whether to go on: the first process says it, and the others wait for it, however long that takes.

    A collective operation would give up after half an hour, so this goes through the store by which they have met.
    Every process makes one of these; where there is only one process nothing happens.
    """

    def __init__(self):
        self._store = None
        if count() > 1:
            from torch.distributed import FileStore, rendezvous

            if folder := os.environ.get(MEETING):
                self._store = FileStore(f"{folder}/first-word", count())
            else:
                self._store, _, _ = next(rendezvous("env://"))

    def say(self, go_on: bool) -> None:
        """Tell the others (the first process only); returns when all have heard it, as the store may end with it."""
        if self._store is not None:
            self._store.set("go on", str(int(go_on)))
            self._store.wait([f"heard {other}" for other in range(1, count())], _LONG)

    def hear(self) -> bool:
        """What the first process says."""
        self._store.wait(["go on"], _LONG)
        go_on = self._store.get("go on") == b"1"
        self._store.set(f"heard {rank()}", "")
        return go_on


def launch(count: int, command: Sequence[str]) -> None:
    """Run `command` in `count` processes on this machine, as torchrun does.

    When one is killed, for its memory for example, all are started anew and go on from the last checkpoint. One that
    ends with an exit code has said why, and would again. (Which of both it was torchrun's own restarts do not ask.)

    Raises:
        CotamError: they did not end well.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for attempt in range(RESTARTS + 1):
        try:
            with _meeting() as folder:
                config = LaunchConfig(
                    min_nodes=1,
                    max_nodes=1,
                    nproc_per_node=count,
                    run_id=uuid.uuid4().hex,
                    rdzv_backend="c10d",
                    rdzv_endpoint=str(folder / "agent"),
                    rdzv_configs={"store_type": "file"},
                    max_restarts=0,
                    monitor_interval=0.2,
                )
                elastic_launch(config, sys.executable)(*command)
            return
        except ChildFailedError as error:
            first, code = _first(error.failures)
            if code >= 0:
                said = f"Process {first} of {count} ended with exit code {code}; what it said is above."
                raise CotamError(said) from None
            if attempt < RESTARTS:
                said = f"Process {first} of {count} was killed (signal {-code})"
                print(f"{said}; all go on from the last checkpoint.", file=sys.stderr, flush=True)
    raise CotamError(f"Processes were killed {RESTARTS + 1} times; if it was for memory, lower COTAM_MICRO_BATCH.")


@contextmanager
def _meeting() -> Iterator[Path]:
    """A folder to meet by, and the environment in which nothing is heard from beyond this machine."""
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="cotam-processes-") as folder:
        os.environ[MEETING] = folder
        # Or torch's agent opens a port on all interfaces for processes to meet by.
        os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
        os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = loopback
        try:
            yield Path(folder)
        finally:
            os.environ.clear()
            os.environ.update(before)


def _first(failures: Mapping[int, "ProcessFailure"]) -> tuple[int, int]:
    """Rank and exit code of the process that failed first.

    Times are whole seconds. Of those of the same second one that was killed comes first, as the others lost their
    connection to it; SIGTERM is what torch's agent ends the others with.
    """

    def order(rank: int) -> tuple[int, int, int]:
        code = failures[rank].exitcode
        return failures[rank].timestamp, 2 if code == -signal.SIGTERM else code >= 0, rank

    first = min(failures, key=order)
    return first, failures[first].exitcode


def _number(variable: str) -> int | None:
    said = os.environ.get(variable, "")
    if not said:
        return None
    if not said.isdigit() or int(said) < 1:
        raise CotamError(f"{variable} is {said!r}: set it to a whole number from 1 on, or not at all.")
    return int(said)
