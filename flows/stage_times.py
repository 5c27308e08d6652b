"""How long a finished run was at work in its stages, and how long around them, as MLflow has recorded it.

A stage counts from when its step begins to when it ends. Whatever is around it does not: the starts of Prefect's and
DVC's processes, the imports, hashing, waiting for a worker, and what is recorded afterwards.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from components.tracking.client import TrackingClient, tags
from components.tracking.registry import EXPERIMENT


@dataclass(frozen=True)
class StageTimes:
    """The times of one run.

    Attributes:
        begun, ended: of the whole, in seconds since the epoch.
        stages: of those that ran, name -> when it began and ended.
    """

    begun: float
    ended: float
    stages: dict[str, tuple[float, float]]

    @property
    def whole(self) -> float:
        """Seconds from the flow's first record to its last."""
        return self.ended - self.begun

    @property
    def summed(self) -> float:
        """Seconds of all stages, one after the other."""
        return sum(end - begin for begin, end in self.stages.values())

    @property
    def busy(self) -> float:
        """Seconds in which at least one stage was at work."""
        return union_length(self.stages.values())

    @property
    def around(self) -> float:
        """Seconds in which no stage was at work."""
        return self.whole - self.busy


def union_length(intervals: Iterable[tuple[float, float]]) -> float:
    """How much of the line these intervals cover together."""
    covered, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        covered += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return covered


def stage_times(client: TrackingClient, run: dict[str, Any]) -> StageTimes:
    """The times of a run of train-and-eval that has ended (as `get_run` gives it)."""
    ran = {name: child["info"] for name, child in client.children(run).items() if tags(child).get("ran") == "true"}
    return StageTimes(
        *_seconds(run["info"]),
        {name: _seconds(info) for name, info in sorted(ran.items(), key=lambda pair: pair[1]["start_time"])},
    )


def newest(client: TrackingClient, run_id: str | None = None) -> dict[str, Any] | None:
    """The run of that id, or the last train-and-eval that has finished; None when there is none."""
    if run_id:
        return client.get_run(run_id)
    where = "attributes.status = 'FINISHED' and tags.kind = 'experiment'"
    finished = client.search_runs([client.experiment(EXPERIMENT)], where)
    # Stages of the flow `ablations` are below its variants.
    return next((run for run in finished if "flow" not in tags(run)), None)


def of_flow_run(client: TrackingClient, flow_run_id: str) -> dict[str, Any] | None:
    """The run that a flow run of train-and-eval has finished; None when there is none."""
    where = f"attributes.status = 'FINISHED' and tags.prefect_flow_run = '{flow_run_id}'"
    return next(iter(client.search_runs([client.experiment(EXPERIMENT)], where, limit=1)), None)


def _seconds(info: dict[str, Any]) -> tuple[float, float]:
    return int(info["start_time"]) / 1000, int(info["end_time"]) / 1000
