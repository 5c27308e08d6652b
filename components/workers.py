"""Jobs shared out to processes that were forked after the imports, which cost twenty seconds and are so paid once.

Every job is computed with one thread, whatever the number of workers: its result cannot depend on how many there are.
"""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import NoReturn, TypeVar

import torch

from components.errors import CotamError
from components.locks import die_with_parent

Job = TypeVar("Job")
Result = TypeVar("Result")
Start = Callable[[], Callable[[Job], Result]]
"""Called once in each process: loads the models and gives the function that does a job."""

_do: Callable | None = None


def in_one_process(workers: int) -> bool:
    """Whether `run_jobs` does all jobs in this process, one after the other in their order."""
    return workers == 1 or torch.cuda.is_available()


def run_jobs(
    jobs: Sequence[Job], start: Start, workers: int, advice: str = "run with `threads: 1`"
) -> Iterator[tuple[Job, Result]]:
    """Yield (job, result) as they finish. With a GPU, or one worker, everything happens in this process.

    Until this is called nothing should have computed with torch here: thread pools do not survive a fork. `advice` is
    what to do when memory runs out.

    Raises:
        CotamError: a worker was killed, as the kernel does when memory runs out.
        Exception: what `start` or a job raised.
    """
    if not jobs:
        return
    if in_one_process(workers) or len(jobs) == 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            do = start()
            for job in jobs:
                yield job, do(job)
        finally:
            torch.set_num_threads(threads)
        return
    context = multiprocessing.get_context("fork")
    try:
        with ProcessPoolExecutor(min(workers, len(jobs)), context, _enter, (start,)) as pool:
            waiting = {pool.submit(_do_job, job): job for job in jobs}
            try:
                for future in as_completed(waiting):
                    yield waiting.pop(future), future.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
    except BrokenProcessPool:
        raise CotamError(f"A worker process was killed, probably for memory; {advice}.") from None


def _enter(start: Start) -> None:
    global _do
    die_with_parent()
    torch.set_num_threads(1)
    try:
        _do = start()
    except Exception as error:
        # Raised here it would look like a killed worker; with the first job it reaches the caller as it is.
        _do = partial(_fail, error)


def _do_job(job: Job) -> Result:
    return _do(job)


def _fail(error: Exception, _: Job) -> NoReturn:
    raise error
