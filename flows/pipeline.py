"""The DVC graph as Prefect tasks: one per stage, each waiting on its upstream.

A task does no work itself. Work pools belong to deployments, so it asks for a run of `run-stage/<pool>` (on other
machines `run-stage/cluster-<pool>`) and awaits it. A stage whose worker died is asked for again; one that failed, where
the flow was told to retry.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.states import State
from prefect.tasks import exponential_backoff

from flows.dvc_graph import Stage, read_graph, unchanged
from flows.elsewhere import run_elsewhere
from flows.records import record_stage

RETRY_SECONDS = 10.0
"""Before a stage that failed is tried the first time again; twice as long before each further time."""


class PipelineFailed(Exception):
    """At least one stage did not finish."""


class CommandFailed(PipelineFailed):
    """A stage's command ended badly, rather than its machine or process, and nobody has cancelled it."""


@dataclass(frozen=True)
class Job:
    """What all stages of one experiment have in common.

    Attributes:
        project: the checkout that the driver works in.
        tracking: MLFLOW_TRACKING_URI and COTAM_PARENT_RUN.
        remote: stages run on other machines, each in a checkout of its own.
    """

    project: Path
    tracking: dict[str, str] = field(default_factory=dict)
    remote: bool = False


@task(task_run_name="{stage.name}", cache_policy=NO_CACHE)
def drive(stage: Stage, job: Job) -> str:
    """Have one stage run where it belongs and return `ran` or `unchanged`.

    Raises:
        CommandFailed: it failed.
        PipelineFailed: it was cancelled, or crashed four times.
    """
    if not job.remote and unchanged(job.project, stage.name):
        get_run_logger().info("Stage %s is up to date.", stage.name)
        record_stage(job.project, stage.name, job.tracking, ran=False)
        return "unchanged"
    parameters = {"stage": stage.name, "tracking": job.tracking, "remote": job.remote, "pool": stage.pool}
    if not job.remote:
        parameters["project"] = str(job.project)
    pool = f"cluster-{stage.pool}" if job.remote else stage.pool
    state = run_elsewhere(f"run-stage/{pool}", parameters, stage.name)
    if not state.is_completed():
        kind = CommandFailed if state.is_failed() else PipelineFailed
        raise kind(f"Stage {stage.name} is {state.name.lower()}: {state.message}")
    return "ran"


def _has_failed(task: Any, task_run: Any, state: State) -> bool:
    """Whether to try again: not what somebody cancelled, nor what was asked for again four times already."""
    return isinstance(state.result(raise_on_failure=False), CommandFailed)


def run_pipeline(job: Job, retries: int = 0) -> None:
    """Run the whole graph of `job.project`; called inside a flow. A stage that failed is tried again `retries` times.

    Raises:
        PipelineFailed: naming every stage that failed. Stages that do not depend on those have run.
    """
    check(run_stages(read_graph(job.project), lambda _: job, retries))


def run_stages(stages: Sequence[Stage], job_of: Callable[[Stage], Job], retries: int = 0) -> dict[str, State]:
    """Run stages, each after those of its upstream that are among them; called inside a flow.

    Args:
        stages: in an order in which they can run.
        job_of: what a stage is run for.
        retries: how often a stage that failed is tried again, after `RETRY_SECONDS` and then ever longer.

    Returns:
        Stage -> how it ended. What does not depend on a stage that failed has run.
    """
    waits = exponential_backoff(RETRY_SECONDS)
    task = drive.with_options(retries=retries, retry_delay_seconds=waits, retry_condition_fn=_has_failed)
    futures = dict[str, PrefectFuture]()
    for stage in stages:
        before = [futures[name] for name in sorted(stage.upstream) if name in futures]
        futures[stage.name] = task.submit(stage, job_of(stage), wait_for=before)
    states: dict[str, State] = {}
    for name, future in futures.items():
        future.wait()
        states[name] = future.state
    return states


def check(states: Mapping[str, State]) -> None:
    """Raises PipelineFailed, naming every stage that failed or did not run."""
    if failed := [state.message for state in states.values() if state.is_failed() or state.is_crashed()]:
        raise PipelineFailed(" ".join(failed))
    if skipped := [name for name, state in states.items() if not state.is_completed()]:
        raise PipelineFailed(f"These stages did not run: {', '.join(skipped)}.")
