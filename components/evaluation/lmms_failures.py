"""`lmms-eval --model cotam` ends with one sentence and exit code 1 where its tasks' files are missing or damaged.

By itself lmms-eval prints a traceback and exits with 0, and it builds the prompt of a task's first row before the model
hears of the task. So its functions are watched from where it makes our model. That concerns its commands with
`--model cotam` alone: other models, and programs that hand it a model, see what lmms-eval raises.
"""

import sys
import traceback
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Any

from datasets.exceptions import DatasetGenerationError
from lmms_eval import evaluator
from lmms_eval.api.task import ConfigurableTask
from tenacity import RetryError

from components.errors import CotamError
from components.evaluation.layouts import CheckedTasks
from components.evaluation.lmms_plugin import NAME

_FURTHER = ("scenes_mmmu", "scenes_videomme")


def exits(function: Callable) -> Callable:
    """Have a CotamError end lmms-eval with its sentence: what else is raised, it prints, and then exits with 0."""

    @wraps(function)
    def run(*args, **kwargs):
        try:
            return function(*args, **kwargs)
        except CotamError as error:
            sys.exit(f"cotam: {error}")

    return run


def fails(function: Callable, ours: Callable[[Any], bool]) -> Callable:
    """Have whatever a function raises end lmms-eval with 1 if `ours` says so of one of its arguments."""

    @wraps(function)
    def run(*args, **kwargs):
        try:
            return function(*args, **kwargs)
        except Exception as error:
            if not any(map(ours, (*args, *kwargs.values()))):
                raise
            if not isinstance(error, CotamError):  # nobody foresaw it: whoever looks into it needs the traceback
                traceback.print_exc()
                error = f"lmms-eval stopped ({reason(error)})."
            sys.exit(f"cotam: {error}")

    return run


@cache
def watch(model_class: type) -> None:
    """Watch how lmms-eval loads tasks, reads their first rows, asks and scores, from now on in this process."""
    ConfigurableTask.download = _download(ConfigurableTask.download)
    ConfigurableTask.__init__ = _first_row(ConfigurableTask.__init__)
    evaluator.get_task_dict = fails(evaluator.get_task_dict, _is_asked)
    evaluator.evaluate = fails(evaluator.evaluate, lambda one: isinstance(one, model_class))


def reason(error: BaseException) -> str:
    """What went wrong below what lmms-eval and `datasets` wrap around it, in a line."""
    if isinstance(error, RetryError):
        error = error.last_attempt.exception() or error
    if isinstance(error, DatasetGenerationError):
        error = error.__cause__ or error
    lines = str(error).strip().splitlines()
    # The first sentence. Pillow says besides where in memory the bytes lie that it cannot read.
    said = lines[0].split(". ")[0].split(" <_io")[0].rstrip(".:") if lines else ""
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _download(original: Callable) -> Callable:
    """Task.download, after which the columns are looked at that the task is known to read."""

    @wraps(original)
    def download(self: ConfigurableTask, dataset_kwargs: dict | None = None) -> None:
        # lmms-eval tries five times, two seconds apart. What lies on this disk is no better the fifth time.
        load = getattr(original, "__wrapped__", original) if _is_asked(self) and _is_here(self) else original
        try:
            load(self, dataset_kwargs)
        except Exception as error:
            _refuse(self, _not_loaded, error)
            raise
        if _is_asked(self):
            CheckedTasks()[self.config.task] = self.dataset

    return download


def _first_row(original: Callable) -> Callable:
    """The task's __init__, which ends with the prompt and the answer of the first row."""

    @wraps(original)
    def initialize(self: ConfigurableTask, *args, **kwargs) -> None:
        try:
            original(self, *args, **kwargs)
        except CotamError:
            raise
        except Exception as error:
            _refuse(self, _not_read, error)
            raise

    return initialize


def _is_asked(one: Any) -> bool:
    """Of what lmms-eval makes tasks with, and of tasks: whether that is for `--model cotam`."""
    return getattr(one, "model_name", None) == NAME


def _refuse(task: ConfigurableTask, say: Callable[[ConfigurableTask, Exception], str | None], error: Exception) -> None:
    """Raises CotamError instead of an error, where cotam is asked and there is something to say."""
    if _is_asked(task) and (said := say(task, error)):
        raise CotamError(f"{said}; {_remedy(task)}.") from error


def _not_loaded(task: ConfigurableTask, error: Exception) -> str:
    name, folder = f"The benchmark {task.config.task}", task.DATASET_PATH
    if _is_here(task):
        return f"{name} cannot be loaded ({reason(error)})"
    return f"{name} is neither in a folder {folder} here nor could it be fetched from Hugging Face ({reason(error)})"


def _not_read(task: ConfigurableTask, error: Exception) -> str | None:
    """None where it is not the files' fault."""
    name, splits = f"The benchmark {task.config.task}", getattr(task, "dataset", None)
    split = task.config.test_split or task.config.validation_split
    if splits is None or split is None:
        return None
    if split not in splits:
        return f"{name} has no split {split!r}"
    if isinstance(error, KeyError) and error.args and error.args[0] not in splits[split].column_names:
        return f"{name} has no column {error.args[0]!r}"
    return f"Question 0 of {task.config.task} cannot be read ({reason(error)})"


def _is_here(task: ConfigurableTask) -> bool:
    """Whether the files lie on this disk, or should."""
    return _is_over_scenes(task) or (bool(task.DATASET_PATH) and Path(task.DATASET_PATH).exists())


def _is_over_scenes(task: ConfigurableTask) -> bool:
    return str(task.config.task).startswith("scenes_")


def _remedy(task: ConfigurableTask) -> str:
    if task.config.task in _FURTHER:
        return "make it again with `python -m components.evaluation.further data/benchmarks/further`"
    if _is_over_scenes(task):
        return "make it again with `dvc repro benchmarks`"
    if _is_here(task):
        return "fetch its files again"
    return "put its files there, or connect to the network and log in with `hf auth login`"
