"""What answers to a task are worth, by lmms-eval's own functions, and without what it prints meanwhile."""

import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lmms_eval.api.task import Task
from lmms_eval.evaluator_utils import TaskOutput

FILTER = "none"  # the one that lmms-eval gives a task without filters of its own: it takes the answer as it is


def aggregates(task: Task, found: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """lmms-eval's numbers of a task, from what it found of every answer, under its names, without the filter's name and
    the standard errors that it adds."""
    output = TaskOutput.from_taskdict(task.config.task, task)
    for metrics in found:
        for metric, value in metrics.items():
            output.sample_metrics[metric, FILTER].append(value)
    output.calculate_aggregate_metric(bootstrap_iters=0)
    pairs = ((key.partition(",")[0], value) for key, value in output.agg_metrics.items() if key.endswith(f",{FILTER}"))
    return {name: float(value) for name, value in pairs if "stderr" not in name and isinstance(value, int | float)}


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Hide the progress bars and tables that lmms-eval prints for each benchmark."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield
