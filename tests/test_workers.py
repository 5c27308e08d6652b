"""Jobs in processes: the same results whatever their number, and one sentence when one of them goes wrong."""

import multiprocessing
import os
import signal
import time

import psutil
import pytest
import torch

from components.errors import CotamError
from components.workers import run_jobs

in_processes = pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU everything happens in one process")


def squares():
    def square(job):
        assert torch.get_num_threads() == 1
        return job * job

    return square


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_do_not_depend_on_the_number_of_processes(workers):
    threads = torch.get_num_threads()
    assert dict(run_jobs(range(7), squares, workers)) == {job: job * job for job in range(7)}
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("workers", [1, 2])
def test_without_jobs_nothing_is_started(workers):
    assert list(run_jobs([], None, workers)) == []


@in_processes
def test_models_are_loaded_once_per_process():
    def start():
        loaded = time.monotonic_ns()
        return lambda job: (os.getpid(), loaded)

    found = [result for _, result in run_jobs(range(12), start, 2)]
    assert os.getpid() not in {process for process, _ in found}
    assert len(set(found)) == len({process for process, _ in found}) <= 2


@in_processes
def test_a_killed_worker_is_one_sentence():
    def start():
        return lambda job: os.kill(os.getpid(), signal.SIGKILL) if job == 3 else job

    with pytest.raises(
        CotamError, match=r"^A worker process was killed, probably for memory; run with `threads: 1`\.$"
    ):
        list(run_jobs(range(6), start, 2))


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_start_or_a_job_says_reaches_the_user(workers):
    def bad_start():
        raise CotamError("The weights are damaged; copy them again.")

    def start():
        def do(job):
            raise CotamError("The stream is damaged; copy it again.")

        return do

    for begin, words in ((bad_start, r"^The weights are damaged; copy"), (start, r"^The stream is damaged; copy")):
        with pytest.raises(CotamError, match=words):
            list(run_jobs(range(4), begin, workers))


@in_processes
def test_workers_die_with_a_killed_parent(tmp_path):
    def start():
        (tmp_path / str(os.getpid())).touch()
        return lambda job: time.sleep(600)

    parent = multiprocessing.get_context("fork").Process(target=lambda: list(run_jobs(range(2), start, 2)))
    parent.start()
    try:
        _wait(lambda: len(list(tmp_path.iterdir())) == 2)
        workers = [int(path.name) for path in tmp_path.iterdir()]
        assert all(psutil.pid_exists(worker) for worker in workers)
    finally:
        parent.kill()
        parent.join()
    _wait(lambda: not any(map(_alive, workers)))


def _alive(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _wait(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
