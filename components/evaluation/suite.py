"""Benchmarks as lmms-eval tasks, loaded once and asked many times: once per codec and quality.

lmms-eval builds the requests, filters the answers, scores and aggregates them with its own functions (tasks/*.yaml);
what is added is where the documents lie and which sample is which question. Its `evaluate`, which gives the same, does
all of it anew for every setting: with a small MLLM a quarter of the time. Here requests are built once, and an answer
that was given before has the score that it had. Nothing is fetched and no socket is opened.
"""

import copy
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmms_eval.api.instance import Instance
from lmms_eval.api.task import Task
from lmms_eval.tasks import TaskManager, get_task_dict
from loguru import logger

from components.errors import CotamError
from components.evaluation.benchmarks import BENCHMARKS
from components.evaluation.layouts import CheckedTasks
from components.evaluation.lmms_scoring import FILTER, aggregates, silence

if TYPE_CHECKING:
    from components.mllm import Mllm, Seen, View

TASKS = Path(__file__).parent / "tasks"

SCORE: dict[str, Callable[[dict[str, Any]], float]] = {
    "mme": lambda sample: sample["mme_perception_score"]["score"],
    "pope": lambda sample: sample["pope_accuracy"]["score"],
    "vqav2": lambda sample: sample["exact_match"],
    "textvqa": lambda sample: sample["exact_match"],
    "seedbench": lambda sample: float(sample["seed_image"]["pred"].lower() == sample["seed_image"]["answer"].lower()),
    "mmbench": lambda sample: sample["mmbench_accuracy"]["score"],
    "videomme": lambda sample: sample["videomme_perception_score"]["score"],
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
        self.mllm = mllm
        self._benchmarks = load_benchmarks({name: folder / f"{name}.jsonl" for name in BENCHMARKS})

    def run(self, views: Mapping[str, "View"]) -> Outcome:
        """Ask every question about `views` (image name -> what the MLLM sees). Equal views give equal outcomes."""
        benchmarks = self._benchmarks.values()
        requests = [request for benchmark in benchmarks for request in benchmark.requests]
        images = [image for benchmark in benchmarks for image in benchmark.images]
        ask(self.mllm, requests, [views[image] for image in images])
        return outcome_of(self._benchmarks)


def load_benchmarks(files: Mapping[str, Path]) -> dict[str, "Benchmark"]:
    """Tasks over scenes, with their documents.

    Args:
        files: benchmark -> where its documents lie.

    Raises:
        CotamError: a file, or a column of it, is missing.
    """
    missing = [file for file in files.values() if not file.is_file()]
    if missing:
        raise CotamError(f"{missing[0].parent} has no {missing[0].name}; run `dvc repro benchmarks`.")
    logger.disable("lmms_eval")
    manager = TaskManager(include_path=str(TASKS), include_defaults=False)
    # In memory, and without the user's Hugging Face cache: what was cached from another run is never read.
    with tempfile.TemporaryDirectory() as cache, silence():
        tasks = get_task_dict([_task(name, file, cache) for name, file in files.items()], manager)
        checked = CheckedTasks()
        for name, task in tasks.items():
            checked[name] = task.dataset
        return {name: Benchmark(tasks[f"scenes_{name}"]) for name in files}


def ask(mllm: "Mllm", requests: Sequence[Instance], seen: "Sequence[Seen]") -> None:
    """Put requests to the MLLM, each about what it sees in that place of `seen`, and note the answers in them."""
    prompts, options = zip(*(request.args[:2] for request in requests), strict=True)
    (max_new_tokens,) = {option["max_new_tokens"] for option in options}
    answers = mllm.answer(seen, prompts, max_new_tokens=max_new_tokens)
    for request, answer in zip(requests, answers, strict=True):
        request.resps = [answer]


def outcome_of(benchmarks: Mapping[str, "Benchmark"]) -> Outcome:
    """What the answers that were noted are worth."""
    asked, aggregates = [], {}
    for name, benchmark in benchmarks.items():
        scored, aggregates[name] = benchmark.score()
        asked += [Asked(name, document, said, float(SCORE[name](found))) for document, said, found in scored]
    return Outcome(asked, aggregates)


class Benchmark:
    """One benchmark: its documents and requests, and what each answer that was given so far is worth."""

    def __init__(self, task: Task):
        task.set_config("num_fewshot", 0)
        task.build_all_requests()
        self.task = task
        self.requests: list[Instance] = task.instances
        self.documents: list[dict[str, Any]] = list(task.eval_docs)
        self.images = [task.doc_to_visual(self.documents[request.doc_id])[0] for request in self.requests]
        self._known: dict[tuple[int, str], dict[str, Any]] = {}

    def score(self) -> tuple[list[tuple[dict[str, Any], str, dict[str, Any]]], dict[str, float]]:
        """(document, filtered answer, its metrics) for every request, and lmms-eval's aggregates."""
        self.task.apply_filters()
        scored = []
        for request in self.requests:
            answer = request.filtered_resps[FILTER]
            metrics = self._metrics(request.doc_id, answer)
            scored.append((self.documents[request.doc_id], answer, metrics))
        return scored, aggregates(self.task, (metrics for *_, metrics in scored))

    def _metrics(self, number: int, answer: str) -> dict[str, Any]:
        if (number, answer) not in self._known:
            document = copy.deepcopy(self.documents[number])  # VQAv2's scoring writes into it
            self._known[number, answer] = self.task.process_results(document, [answer])
        return self._known[number, answer]


def _task(name: str, file: Path, cache: str) -> dict[str, Any]:
    where = {"data_files": {"test": str(file)}, "cache_dir": cache, "keep_in_memory": True}
    return {"task": f"scenes_{name}", "dataset_kwargs": where}
