"""The benchmarks themselves, as lmms-eval's tasks: loaded once and asked many times, once per codec and quality.

lmms-eval finds the data, builds the requests, filters the answers, scores and aggregates them with its own functions.
What is added is what one question is worth, 0 to 1, so that images can be drawn again (bootstrap.py).
"""

import contextlib
import hashlib
import inspect
import json
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lmms_eval.api.instance import Instance
from lmms_eval.api.task import Task
from lmms_eval.tasks import TaskManager, get_task_dict
from loguru import logger

from components.errors import CotamError
from components.evaluation.lmms_failures import reason, watch
from components.evaluation.lmms_plugin import NAME
from components.evaluation.lmms_scoring import FILTER, aggregates, silence
from components.evaluation.task_results import DATA

Metrics = Mapping[str, Any]
Document = Mapping[str, Any]


def _alone(metric: str, best: float) -> Callable[[Task, Sequence[Metrics]], float]:
    """lmms-eval's own aggregate over one question's passes, of at most `best`."""

    def score(task: Task, passes: Sequence[Metrics]) -> float:
        aggregate = task.aggregation()[metric]
        options = {"args": task.args} if "args" in inspect.signature(aggregate).parameters else {}
        return aggregate([one[metric] for one in passes], **options) / best

    return score


def _first(worth: Callable[[Metrics], float]) -> Callable[[Task, Sequence[Metrics]], float]:
    return lambda _, passes: worth(passes[0])


def _mme(metrics: Metrics) -> float:
    [found] = metrics.values()  # of perception or of cognition
    return found["score"]


def _seed(metrics: Metrics) -> float:
    return float(metrics["seed_image"]["pred"].lower() == metrics["seed_image"]["answer"].lower())


@dataclass(frozen=True)
class Rules:
    """What this project adds to a task of lmms-eval.

    Attributes:
        score: task, what it found of each pass of one question -> 0 (wrong) to 1 (right).
        asked: which documents are.
        question: document -> what its passes have in common; None: every document is a question of its own.
        pair: document -> what joins the two questions of MME's pairs.
        category: document -> where it counts; MME's score is a mean over them.
        videos: whether it shows these.
    """

    score: Callable[[Task, Sequence[Metrics]], float]
    asked: Callable[[Document], bool] = lambda document: True
    question: Callable[[Document], str] | None = None
    pair: Callable[[Document], str | None] = lambda document: None
    category: Callable[[Document], str] = lambda document: ""
    videos: bool = False


RULES: dict[str, Rules] = {
    "mme": Rules(
        _first(_mme),
        pair=lambda document: f"{document['category']}/{document['question_id']}",
        category=lambda document: document["category"],
    ),
    "textvqa_val": Rules(_first(lambda metrics: metrics["exact_match"])),
    "pope": Rules(_first(lambda metrics: metrics["pope_accuracy"]["score"])),
    # Its other questions show frames of videos.
    "seedbench": Rules(_first(_seed), asked=lambda document: document["data_type"] == "image"),
    "vqav2_val": Rules(_first(lambda metrics: metrics["exact_match"])),
    "mmmu_val": Rules(_alone("mmmu_acc", 1)),
    # Asked once per order of its choices, a million apart; right when all of these are.
    "mmbench_en_dev_static": Rules(
        _alone("gpt_eval_score", 100), question=lambda document: str(document["index"] % 1_000_000)
    ),
    "videomme": Rules(_first(lambda metrics: metrics["videomme_perception_score"]["score"]), videos=True),
}
"""By lmms-eval's names, in the order of the paper's tables; `evaluation.tasks` may hold these."""


class OfficialTask:
    """One of lmms-eval's tasks, its documents and its requests.

    Attributes:
        task_dict: as `Asker` wants it.
        requests: one per document that is asked.
        documents: without their pictures, in the order of the requests.
        questions: of each question, which of the requests are its passes; in the order of the requests.
    """

    def __init__(self, name: str, root: Path):
        """Load the documents; `root` is the checkout, which may hold `DATA`.

        Raises:
            CotamError: there are none, or a column that the task reads is missing.
        """
        self.name, self.rules = name, RULES[name]
        logger.disable("")  # tasks log under names of their own
        with silence():
            self.task = _load(name, root)
            self.task.set_config("num_fewshot", 0)
            self.task.build_all_requests()
        self.task_dict = {name: self.task.dataset}
        documents = self.task.eval_docs_no_media
        self.requests: list[Instance] = []
        self.documents: list[Document] = []
        self.questions: dict[str, list[int]] = {}
        for request in self.task.instances:
            request.resps = [""]  # of those that are not asked
            document = documents[request.doc_id]
            if not self.rules.asked(document):
                continue
            question = self.rules.question(document) if self.rules.question else str(request.doc_id)
            self.questions.setdefault(question, []).append(len(self.requests))
            self.requests.append(request)
            self.documents.append(document)
        if not self.requests:
            raise CotamError(f"The benchmark {name} has no questions; fetch its files again.")

    @cached_property
    def identity(self) -> str:
        """Another one where something else is asked, or the data's files have changed: DVC does not see them."""
        asked = [[request.doc_id, *request.args[:2]] for request in self.requests]
        data = {split: rows._fingerprint for split, rows in self.task.dataset.items()}
        return hashlib.sha256(json.dumps([self.name, data, asked], sort_keys=True).encode()).hexdigest()[:16]

    def score(self, answers: Sequence[str]) -> tuple[list[float], dict[str, float]]:
        """What answers to the requests are worth: 0 to 1 for every question, and lmms-eval's aggregates."""
        for request, answer in zip(self.requests, answers, strict=True):
            request.resps = [answer]
        with silence(), tempfile.TemporaryDirectory() as folder:
            self.task.args = SimpleNamespace(output_path=folder)  # where it writes files for others
            self.task.apply_filters()
            found = [self._metrics(request) for request in self.requests]
            worth = [
                float(self.rules.score(self.task, [found[place] for place in passes]))
                for passes in self.questions.values()
            ]
            return worth, aggregates(self.task, found)

    def _metrics(self, request: Instance) -> Metrics:
        # MMMU's answers that cannot be read are guessed: the same guess whatever the codec.
        random.seed(request.doc_id)
        document = self.task.eval_docs_no_media[request.doc_id]  # anew: VQAv2's scoring writes into it
        return self.task.process_results(document, [request.filtered_resps[FILTER]])


def _load(name: str, root: Path) -> Task:
    """The task with its data; the network is asked only where the user has not switched that off."""
    watch(OfficialTask)  # from now on what is wrong with data is one sentence
    here = root / DATA if (root / DATA).is_dir() else root
    try:
        with contextlib.chdir(here):
            [task] = get_task_dict([name], _manager()).values()
    except CotamError as error:
        raise CotamError(f"lmms-eval's data ({DATA}, docs/lmms-eval.md): {error}") from None
    except Exception as error:  # that nobody foresaw
        raise CotamError(f"lmms-eval's task {name} cannot be loaded ({reason(error)}).") from error
    return task


@cache
def _manager() -> TaskManager:
    """What knows all of lmms-eval's tasks, which takes seconds to read."""
    return TaskManager(model_name=NAME)
