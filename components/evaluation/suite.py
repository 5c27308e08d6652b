"""The six benchmarks as lmms-eval tasks, loaded once and asked many times: once per codec and quality.

lmms-eval builds the requests, filters the answers and scores them with its own functions (tasks/*.yaml); what is added
is where the documents lie and which sample is which question. Nothing is fetched and no socket is opened.
"""

import contextlib
import io
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmms_eval.evaluator import evaluate
from lmms_eval.tasks import TaskManager, get_task_dict
from loguru import logger

from components.errors import CotamError
from components.evaluation.benchmarks import BENCHMARKS
from components.evaluation.bridge import Cotam
from components.evaluation.layouts import CheckedTasks

if TYPE_CHECKING:
    from components.mllm import Mllm, View

TASKS = Path(__file__).parent / "tasks"

SCORE: dict[str, Callable[[dict[str, Any]], float]] = {
    "mme": lambda sample: sample["mme_perception_score"]["score"],
    "pope": lambda sample: sample["pope_accuracy"]["score"],
    "vqav2": lambda sample: sample["exact_match"],
    "textvqa": lambda sample: sample["exact_match"],
    "seedbench": lambda sample: float(sample["seed_image"]["pred"].lower() == sample["seed_image"]["answer"].lower()),
    "mmbench": lambda sample: sample["mmbench_accuracy"]["score"],
}
"""Where lmms-eval leaves the score of one question, 0 to 1."""


@dataclass(frozen=True)
class Asked:
    """One question as it was put to the MLLM, what it said, and what that is worth (0 to 1)."""

    benchmark: str
    document: dict[str, Any]
    answer: str
    score: float


@dataclass(frozen=True)
class Outcome:
    """All that one run over the benchmarks gave: every question, and lmms-eval's aggregates per benchmark."""

    asked: list[Asked]
    aggregates: dict[str, dict[str, float]]


class Suite:
    """The six tasks over one folder of benchmarks (`data/benchmarks/bench`), and the MLLM that is asked."""

    def __init__(self, folder: Path, mllm: "Mllm"):
        """Load the documents.

        Raises:
            CotamError: a benchmark's file, or a column of it, is missing.
        """
        missing = [name for name in BENCHMARKS if not (folder / f"{name}.jsonl").is_file()]
        if missing:
            raise CotamError(f"{folder} has no {missing[0]}.jsonl; run `dvc repro benchmarks`.")
        logger.disable("lmms_eval")
        self.model = Cotam(mllm)
        manager = TaskManager(include_path=str(TASKS), include_defaults=False)
        # In memory, and without the user's Hugging Face cache: what was cached from another run is never read.
        with tempfile.TemporaryDirectory() as cache, _silence():
            self.tasks = get_task_dict([_task(name, folder, cache) for name in BENCHMARKS], manager)
        self.model.task_dict = CheckedTasks()
        for name, task in self.tasks.items():
            self.model.task_dict[name] = task.dataset
        for task in self.tasks.values():
            task.set_config("num_fewshot", 0)

    def run(self, views: Mapping[str, "View"]) -> Outcome:
        """Ask every question about `views` (image name -> what the MLLM sees). Equal views give equal outcomes."""
        self.model.views = views
        with _silence():
            found = evaluate(
                self.model,
                self.tasks,
                bootstrap_iters=0,
                process_docs_parallel=1,
                distributed_executor_backend="torchrun",
            )
        self.model.views = {}
        asked, aggregates = [], {}
        for name in BENCHMARKS:
            for sample in sorted(found["samples"][f"scenes_{name}"], key=lambda sample: sample["doc_id"]):
                asked.append(Asked(name, sample["doc"], sample["filtered_resps"][0], float(SCORE[name](sample))))
            aggregates[name] = _aggregates(found["results"][f"scenes_{name}"])
        return Outcome(asked, aggregates)


def _task(name: str, folder: Path, cache: str) -> dict[str, Any]:
    where = {"data_files": {"test": str(folder / f"{name}.jsonl")}, "cache_dir": cache, "keep_in_memory": True}
    return {"task": f"scenes_{name}", "dataset_kwargs": where}


def _aggregates(results: dict[str, Any]) -> dict[str, float]:
    """lmms-eval's numbers under its names, without the filter's name and the standard errors that it adds."""
    pairs = ((key.partition(",")[0], value) for key, value in results.items() if key.endswith(",none"))
    return {name: float(value) for name, value in pairs if "stderr" not in name and isinstance(value, int | float)}


@contextlib.contextmanager
def _silence():
    """Hide the progress bars that lmms-eval draws for each of hundreds of short runs."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield
