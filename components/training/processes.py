"""Training on a processor in a few processes of one thread each, which share every batch.

Towers and adapters are many small operations: on two cores a second thread saves less than half of what a second
process does, as threads wait for each other in every operation and processes once a step.
"""

import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from accelerate.state import AcceleratorState
from accelerate.utils import patch_environment
from torch import distributed

from components.errors import CotamError
from components.locks import die_with_parent

TIMEOUT = timedelta(minutes=10)  # for the others to come, and to each step
PATIENCE = 1.0  # seconds from a connection's end to that of the process behind it


def together(work: Callable[[], None], processes: int, meeting: Path) -> None:
    """Call `work` in this process and in forks of it, all of one process group, which Accelerate finds.

    Where there is a GPU, or for one process, `work` is simply called.

    Args:
        work: does the same in every process but for what it asks Accelerate.
        processes: how many, with this one.
        meeting: a file by which they find each other; it is written and removed.

    Raises:
        CotamError: one of the others ended too early.
        Exception: what `work` raised here.
    """
    if processes == 1 or torch.cuda.is_available():
        work()
        return
    meeting.unlink(missing_ok=True)  # a killed run's
    context = multiprocessing.get_context("fork")
    ranks = range(1, processes)
    others = [context.Process(target=_follow, args=(work, rank, processes, meeting), daemon=True) for rank in ranks]
    threads = torch.get_num_threads()

    def lead() -> None:
        try:
            work()
        except BaseException as error:
            # A killed process is seen here as a connection that broke.
            killed = isinstance(error, RuntimeError) and any(_was_killed(other) for other in others)
            _end(others)  # before the group does, of which they would complain
            if killed:
                raise CotamError("A training process was killed, probably for memory; run with `threads: 1`.") from None
            raise

    for other in others:
        other.start()
    try:
        _join(lead, 0, processes, meeting)
    finally:
        _end(others)
        torch.set_num_threads(threads)
        meeting.unlink(missing_ok=True)


def _was_killed(process: BaseProcess) -> bool:
    process.join(PATIENCE)
    return process.exitcode is not None and process.exitcode < 0


def _end(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        process.kill()
        process.join()


def _follow(work: Callable[[], None], rank: int, processes: int, meeting: Path) -> None:
    die_with_parent()
    try:
        _join(work, rank, processes, meeting)
    except (CotamError, KeyboardInterrupt):  # the first process says it
        sys.exit(1)


def _join(work: Callable[[], None], rank: int, processes: int, meeting: Path) -> None:
    torch.set_num_threads(1)
    place = {"rank": rank, "world_size": processes, "local_rank": rank, "local_world_size": processes}
    place["master_port"] = os.environ.get("MASTER_PORT", "29500")  # Accelerate sets it, and it is not to stay
    loopback = {}
    if sys.platform == "linux" and "GLOO_SOCKET_IFNAME" not in os.environ:
        loopback = {"gloo_socket_ifname": "lo"}
    AcceleratorState._reset_state(reset_partial_state=True)  # what it knows of the time before
    with patch_environment(**place, **loopback):
        distributed.init_process_group(
            "gloo",
            init_method=f"file://{meeting.absolute()}",
            timeout=TIMEOUT,
            rank=rank,
            world_size=processes,
        )
        try:
            work()
        finally:
            distributed.destroy_process_group()
            AcceleratorState._reset_state(reset_partial_state=True)
