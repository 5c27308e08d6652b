"""The end of the flow `ablations`: the verdicts, given where the flow runs, on what ended well.

On a cluster the results are fetched first. What an earlier flow left of stages that failed is taken out of sight.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.states import State

from components.paths import Paths, instance_name
from components.variant_steps import SCORES
from components.variants import SCORED, Run
from flows.run_stage import reproduce, restore, to_log
from pipelines.generate import ABLATIONS

VERDICTS = f"{ABLATIONS}:verdicts"
FETCH = "fetch"


def judged(checkout: Path, chosen: Sequence[Run]) -> dict[str, Path]:
    """What the verdicts read of chosen runs and of the main runs that they are held against.

    Returns:
        Stage -> the folder of its results. A codec or MLLM that only a variant has is in no main run, and so not in the
        graph.
    """
    paths, found = Paths(checkout), {}
    for run in chosen:
        found[f"rate@{instance_name(run.codec)}"] = paths.rate(run.codec)
        found[f"evaluate@{instance_name(run.codec, run.mllm)}"] = paths.scores(run.codec, run.mllm)
        step = next(step.name for step in SCORES if step.runs(run))
        found[f"{ABLATIONS}:{step}@{run.name}"] = checkout / SCORED / run.name
    return found


def give_verdicts(
    checkout: Path, chosen: Sequence[Run], states: Mapping[str, State], tracking: dict[str, str], remote: bool
) -> dict[str, State]:
    """Fetch what other machines made, remove what is old, and judge; called inside a flow.

    Args:
        checkout: of the flow.
        chosen: the runs that were asked for.
        states: how every stage ended.
        tracking: MLFLOW_TRACKING_URI and COTAM_PARENT_RUN.
        remote: the stages ran on other machines.

    Returns:
        How that ended: `FETCH`, if there was anything to fetch, and `VERDICTS`, if fetching did not fail. Then nothing
        is removed or judged.
    """
    there, said = {name for name, state in states.items() if state.is_completed()}, {}
    if remote and there:
        said[FETCH] = _end(fetch.submit(checkout, sorted(there)))
        if not said[FETCH].is_completed():
            return said
    remove_old({stage: folder for stage, folder in judged(checkout, chosen).items() if stage in states}, there)
    said[VERDICTS] = _end(judge.submit(checkout, tracking))
    return said


def remove_old(folders: Mapping[str, Path], ended: set[str]) -> None:
    """Remove what an earlier flow left of stages that have not ended well in this one: it is of other settings or code.

    DVC's cache still has it, and it is back when its settings are.
    """
    for stage, folder in folders.items():
        if stage not in ended and folder.exists():
            shutil.rmtree(folder)
            get_run_logger().warning("%s has no results of this run; its earlier ones are removed.", stage)


@task(task_run_name="fetch", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=20)
def fetch(checkout: Path, stages: list[str]) -> None:
    """Bring the results of other machines here.

    Raises:
        StageFailed: with the last lines that were printed.
    """
    restore(checkout, stages, to_log())


@task(task_run_name="verdicts", cache_policy=NO_CACHE)
def judge(checkout: Path, tracking: dict[str, str]) -> None:
    """Run the last stage where the flow itself runs: nobody else has the results of all machines.

    Raises:
        StageFailed: with the last lines that were printed.
    """
    for name in ("results/rate", "results/scores", SCORED):  # where all of them failed, there is nothing to be read
        (checkout / name).mkdir(parents=True, exist_ok=True)
    reproduce(checkout, VERDICTS, tracking, to_log())


def _end(future: PrefectFuture) -> State:
    future.wait()
    return future.state
