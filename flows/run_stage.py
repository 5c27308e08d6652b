"""One stage, run by the worker of its pool.

In the checkout that the driver works in, that is `dvc repro --single-item STAGE`. On another machine it is
`python -m flows.remote_repro STAGE`: results travel through the DVC remote and its run-cache.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from prefect import flow, get_run_logger

from components.locks import die_with_parent
from components.paths import ROOT
from flows.processes import child_dies_with_parent
from flows.records import record_stage

OUTPUT = "| "
"""Begins every line of a run's log that its command printed, which tells it from what Prefect says."""

HINTS = ("Generating lock file", "Updating lock file", "To track the changes with git", "git add dvc.lock")
HINTS += ("To enable auto staging", "dvc config core.autostage", "Use `dvc push`")
"""How lines begin that DVC prints after every stage, which are for a person who runs it by hand."""

BUSY = ("busy, blocked by", "Unable to acquire lock")
BUSY_WAIT_SECONDS = 2.0


class StageFailed(Exception):
    """A stage's command, or DVC, did not end well."""


def stage_command(stage: str, remote: bool, pool: str) -> list[str]:
    """What is run for a stage."""
    if remote:
        return [sys.executable, "-m", "flows.remote_repro", stage, "--pool", pool]
    return [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", stage]


def stage_environment(project: Path, tracking: Mapping[str, str]) -> dict[str, str]:
    """The environment of a stage: this one, with the project's own code and this virtual environment first."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    code = os.pathsep.join(dict.fromkeys([str(project), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]))
    own = {"PATH": path, "PYTHONPATH": code, "PYTHONUNBUFFERED": "1", "DVC_NO_ANALYTICS": "1"}
    return {**os.environ, **tracking, **own}


def run_lines(command: list[str], project: Path, env: dict[str, str]) -> Iterator[str]:
    """Run `command` and give its output line by line as it comes.

    The command dies with this process, so that a killed worker leaves no stage behind.

    Raises:
        StageFailed: it ended with another code than 0.
    """
    process = subprocess.Popen(
        command,
        cwd=project,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        preexec_fn=child_dies_with_parent,
    )
    try:
        for line in process.stdout:
            # A progress bar rewrites its line: what it last said is enough.
            if text := line.rstrip().rpartition("\r")[2].rstrip():
                yield text
        if process.wait() != 0:
            raise StageFailed(f"it ended with exit code {process.returncode}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def reproduce(
    project: Path,
    stage: str,
    tracking: Mapping[str, str],
    say: Callable[[str], object],
    remote: bool = False,
    pool: str = "cpu",
) -> bool:
    """Bring a stage up to date, record it, and return whether its command ran.

    Raises:
        StageFailed: with the last lines that were printed.
    """
    command, env = stage_command(stage, remote, pool), stage_environment(project, tracking)
    try:
        lines = _run_when_free(f"Stage {stage}", command, project, env, say)
    except StageFailed:
        record_stage(project, stage, tracking, ran=True, status="FAILED")
        raise
    ran = any(line.startswith(f"Running stage '{stage}'") for line in lines)
    record_stage(project, stage, tracking, ran=ran)
    return ran


def restore(project: Path, stages: Sequence[str], say: Callable[[str], object]) -> None:
    """Bring what other machines have made into `project`: the results of `stages`, or without any all of the main run.

    Raises:
        StageFailed: with the last lines that were printed.
    """
    command = [sys.executable, "-m", "flows.remote_repro", *stages]
    _run_when_free("Fetching the results of other machines", command, project, stage_environment(project, {}), say)


def _run_when_free(
    what: str, command: list[str], project: Path, env: dict[str, str], say: Callable[[str], object]
) -> list[str]:
    """Run a command of DVC's, and return what it printed.

    DVC does not wait for a stage that is already being run, by a `dvc repro` of the user or by one whose driver died:
    it says "busy". This waits, and asks again.
    """
    waiting = False
    while True:
        lines: list[str] = []
        try:
            for line in run_lines(command, project, env):
                lines.append(line)
                if not line.lstrip().startswith(HINTS):
                    say(line)
            return lines
        except StageFailed as error:
            if not any(sign in line for line in lines for sign in BUSY):
                raise StageFailed(f"{what} failed, {error}:\n" + "\n".join(lines[-20:])) from error
        if not waiting:
            say(f"{what}: another process is at work on what it needs; waiting for that.")
            waiting = True
        time.sleep(BUSY_WAIT_SECONDS)


@flow(name="run-stage", flow_run_name="{stage}")
def run_stage(
    stage: str,
    project: str | None = None,
    tracking: dict[str, str] | None = None,
    remote: bool = False,
    pool: str = "cpu",
) -> None:
    """Run one stage of the DVC graph.

    Args:
        stage: as DVC names it.
        project: the checkout to run in; the one that this code is in by default.
        tracking: MLFLOW_TRACKING_URI and COTAM_PARENT_RUN of the experiment that it belongs to.
        remote: this machine has a checkout of its own, and shares the DVC remote.
        pool: the pool that this runs in; on another machine no stage of another pool is run.
    """
    if "PREFECT__FLOW_RUN_ID" in os.environ:
        die_with_parent()
    reproduce(Path(project or ROOT).resolve(), stage, tracking or {}, to_log(), remote, pool)


def to_log() -> Callable[[str], None]:
    """What puts a command's lines into the log of the flow or task that asks."""
    logger = get_run_logger()
    return lambda line: logger.info("%s%s", OUTPUT, line)
