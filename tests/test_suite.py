"""lmms-eval over scenes: its scoring, our documents, and not one socket."""

import json
import sys

import pytest
import urllib3  # noqa: F401  as it is imported, it opens a socket to see whether there is IPv6

from components.errors import CotamError
from components.evaluation.benchmarks import BENCHMARKS, SECOND_PASS
from components.evaluation.pictures import benchmark_pictures
from components.evaluation.scores import question_rows
from components.evaluation.step_benchmarks import write_benchmarks
from tests.models import tiny_llava_folder

IMAGES = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmarks") / "bench"
    write_benchmarks(folder, IMAGES, "bench", seed=3, side=128)
    return folder


@pytest.fixture(scope="module")
def documents(folder):
    return {name: [json.loads(line) for line in (folder / f"{name}.jsonl").open()] for name in BENCHMARKS}


_watched: list[str] | None = None


def _notice(event: str, _) -> None:
    if _watched is not None and event.startswith("socket."):
        _watched.append(event)


sys.addaudithook(_notice)  # the interpreter's own record of every socket; a hook stays for good


@pytest.fixture
def no_sockets():
    """Fails when anything in this process as much as created a socket or looked up a host."""
    global _watched
    _watched = []
    yield
    opened, _watched = _watched, None
    assert not opened


class Oracle:
    """In the MLLM's place: says what it was told to, by prompt. The 'view' of an image is its name."""

    def __init__(self, answers):
        self.answers = answers
        self.seen = []

    def answer(self, views, prompts, max_new_tokens):
        self.seen += zip(views, prompts, strict=True)
        return [self.answers[view, prompt] for view, prompt in zip(views, prompts, strict=True)]


def truth(benchmark, document):
    """What a perfect model says."""
    if benchmark == "textvqa":
        return document["answers"][0]
    return document["multiple_choice_answer"] if benchmark == "vqav2" else document["answer"]


def perfect(documents):
    return {
        (document["image"], document["prompt"]): truth(name, document)
        for name, asked in documents.items()
        for document in asked
    }


def run(folder, answers):
    from components.evaluation.suite import Suite

    oracle = Oracle(answers)
    outcome = Suite(folder, oracle).run({f"{number:06d}": f"{number:06d}" for number in range(IMAGES)})
    return outcome, oracle


def test_a_perfect_model_scores_everything(folder, documents, no_sockets):
    outcome, oracle = run(folder, perfect(documents))
    assert len(outcome.asked) == len(oracle.seen) == sum(map(len, documents.values()))
    assert all(asked.score == 1 for asked in outcome.asked)
    assert [asked.benchmark for asked in outcome.asked] == [
        name for name in BENCHMARKS for _ in range(len(documents[name]))
    ]
    categories = {document["category"] for document in documents["mme"]}
    assert outcome.aggregates["mme"]["mme_perception_score"] == 200 * len(categories)
    assert outcome.aggregates["pope"]["pope_f1_score"] == 1
    assert outcome.aggregates["mmbench"]["mmbench_accuracy"] == 1


def test_answers_belong_to_their_image_and_question(folder, documents, no_sockets):
    answers = perfect(documents)
    wrong = documents["vqav2"][3]
    answers[wrong["image"], wrong["prompt"]] = "banana"
    outcome, _ = run(folder, answers)
    mistaken = [asked for asked in outcome.asked if asked.score < 1]
    assert [(asked.benchmark, asked.document["id"], asked.answer) for asked in mistaken] == [
        ("vqav2", wrong["id"], "banana")
    ]


def test_mmbench_answers_that_cannot_be_parsed_are_wrong_and_nobody_is_asked(folder, documents, no_sockets):
    """lmms-eval would put "perhaps" to a web API."""
    answers = perfect(documents)
    unclear, worded, once = documents["mmbench"][0], documents["mmbench"][4], documents["mmbench"][8]
    for document in documents["mmbench"]:
        key = document["image"], document["prompt"]
        if document["id"] == unclear["id"]:
            answers[key] = "perhaps"
        if document["id"] == worded["id"]:
            answers[key] = f"it is {document[document['answer']]}"  # lmms-eval's rules read the option's text
        if document["id"] == once["id"] and document["index"] < SECOND_PASS:
            answers[key] = "BCDA"["ABCD".index(document["answer"])]
    outcome, _ = run(folder, answers)
    wrong = {asked.document["id"] for asked in outcome.asked if asked.score < 1}
    assert wrong == {unclear["id"], once["id"]}
    questions, scores = question_rows(outcome.asked)
    mmbench = [score for question, score in zip(questions, scores, strict=True) if question["benchmark"] == "mmbench"]
    assert len(mmbench) == 2 * IMAGES
    assert sum(mmbench) / len(mmbench) == pytest.approx(outcome.aggregates["mmbench"]["mmbench_accuracy"])


def test_circular_evaluation_agrees_with_lmms_evals_own(folder, documents, no_sockets):
    from lmms_eval.tasks.mmbench import en_utils

    answers = perfect(documents)
    for number, document in enumerate(documents["mmbench"]):
        if number % 3 == 0:
            answers[document["image"], document["prompt"]] = "B"
    outcome, _ = run(folder, answers)
    records = [
        en_utils.mmbench_process_results(dict(asked.document), [asked.answer])["gpt_eval_score"]
        for asked in outcome.asked
        if asked.benchmark == "mmbench"
    ]
    overall, _, _ = en_utils.mmbench_evaluator.eval_result(records, eval_method="static")
    assert outcome.aggregates["mmbench"]["mmbench_accuracy"] == pytest.approx(overall)


def test_all_scores_are_those_of_lmms_evals_own_loop(folder, documents, tmp_path, no_sockets):
    """Asked twice, with other answers in between: what is remembered of an answer stays its own."""
    from lmms_eval.api.model import lmms
    from lmms_eval.evaluator import evaluate
    from lmms_eval.tasks import TaskManager, get_task_dict

    from components.evaluation.suite import SCORE, TASKS, Suite

    answers = perfect(documents)
    for number, key in enumerate(answers):
        answers[key] = (answers[key], "No, not 3.", "the red ones", "B", "yes\n")[number % 5]

    class Asked(lmms):
        def generate_until(self, requests):
            rows = [self.task_dict[one.args[4]][one.args[5]][one.args[3]] for one in requests]
            return [answers[row["image"], row["prompt"]] for row in rows]

        loglikelihood = generate_until_multi_round = None  # no task asks for them

    files = {name: {"data_files": {"test": str(folder / f"{name}.jsonl")}} for name in BENCHMARKS}
    where = {name: {**file, "cache_dir": str(tmp_path), "keep_in_memory": True} for name, file in files.items()}
    named = [{"task": f"scenes_{name}", "dataset_kwargs": where[name]} for name in BENCHMARKS]
    tasks = get_task_dict(named, TaskManager(include_path=str(TASKS), include_defaults=False))
    model = Asked()
    model.task_dict = {name: task.dataset for name, task in tasks.items()}
    expected = evaluate(model, tasks, bootstrap_iters=0, distributed_executor_backend="torchrun")

    oracle = Oracle(answers)
    suite, views = Suite(folder, oracle), {f"{number:06d}": f"{number:06d}" for number in range(IMAGES)}
    first = suite.run(views)
    oracle.answers = perfect(documents)
    assert suite.run(views) != first
    oracle.answers = answers
    found = suite.run(views)
    assert found == first
    for name in BENCHMARKS:
        samples = sorted(expected["samples"][f"scenes_{name}"], key=lambda sample: sample["doc_id"])
        mine = [asked for asked in found.asked if asked.benchmark == name]
        assert [asked.document["id"] for asked in mine] == [sample["doc"]["id"] for sample in samples]
        assert [asked.answer for asked in mine] == [sample["filtered_resps"][0] for sample in samples]
        assert [asked.score for asked in mine] == [float(SCORE[name](sample)) for sample in samples]
        results = expected["results"][f"scenes_{name}"]
        assert found.aggregates[name] == {metric: results[f"{metric},none"] for metric in found.aggregates[name]}
        assert found.aggregates[name]


def test_the_mllm_answers_the_same_twice(folder, tmp_path, no_sockets):
    from components.evaluation.suite import Suite
    from components.mllm import load_mllm

    mllm = load_mllm(tiny_llava_folder(tmp_path / "llava"))
    suite = Suite(folder, mllm)
    pictures = benchmark_pictures(folder)
    views = dict(zip(pictures, mllm.views(list(pictures.values())), strict=True))
    first, second = suite.run(views), suite.run(views)
    assert first == second
    direct = mllm.answer(
        [views[asked.document["image"]] for asked in first.asked],
        [asked.document["prompt"] for asked in first.asked],
        8,
    )
    assert [asked.answer for asked in first.asked] == direct


def test_a_missing_benchmark_is_one_sentence(folder, tmp_path):
    from components.evaluation.suite import Suite

    with pytest.raises(CotamError, match=r"has no mme\.jsonl; run"):
        Suite(tmp_path, Oracle({}))
