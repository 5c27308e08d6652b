"""The step `evaluate-task`: lmms-eval's own tasks on files in the official layouts, up to BD-rates and the page."""

import io
import shutil
from typing import get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from accelerate.state import AcceleratorState
from rich.console import Console

from components import config
from components.adapter import AdapterConfig, LatentAdapter
from components.codec import Codec
from components.errors import CotamError
from components.evaluation.coding import Coder
from components.evaluation.coding_cache import CodingCache
from components.evaluation.official import RULES, OfficialTask
from components.evaluation.samples import read
from components.evaluation.streams import CLEAN, Setting
from components.evaluation.summary import AVERAGED_TASKS, summarise_tasks
from components.evaluation.task_asking import TaskAsker
from components.evaluation.task_results import DATA, task_folder
from components.files import read_json, sha256_tree, write_json
from components.mllm import load_mllm
from components.reporting import step_report
from components.reporting.table import print_tables
from components.reporting.tasks import LABELS, tasks_section
from components.step_inputs import Params, StepInputs
from components.steps import run_step
from flows.records import summary_points
from tests.made_up_run import SETTINGS as MADE_UP
from tests.made_up_run import write_run
from tests.models import WIDTH
from tests.official_benchmarks import write_official
from tests.small_checkout import CODEC, MLLM, write_checkout

INTERNVL = "micro-internvl"
IMAGES = 8
IMAGE_TASKS = ("mme", "textvqa_val", "mmbench_en_dev_static", "mmmu_val")
ASKED = (*IMAGE_TASKS, "videomme")
SETTINGS = {
    "mllms": f"[{MLLM}, {INTERNVL}]",
    "evaluation.tasks": f"[{', '.join(ASKED)}]",
    "evaluation.qualities": "[0, 4, 8]",
    "evaluation.jpeg_qualities": "[5]",
    "evaluation.webp_qualities": "[5]",
}
METHODS = (CODEC, "cotam", "jpeg", "webp")
SETTING_NAMES = ["clean--", *(f"{method}-{q}" for method in (CODEC, "cotam") for q in (0, 4, 8)), "jpeg-5", "webp-5"]


@pytest.fixture(scope="module", autouse=True)
def accelerate_as_it_was():
    """lmms-eval's loading makes an Accelerator without mixed precision, one per process; other tests train in this."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A checkout with the official files, and nothing asked yet."""
    paths = write_checkout(tmp_path_factory.mktemp("checkout"), SETTINGS)
    write_official(paths.root / DATA, IMAGES)
    for mllm, grid in ((MLLM, (8, 8)), (INTERNVL, (6, 6))):
        adapter = LatentAdapter(AdapterConfig(latent_channels=12, feature_dim=WIDTH, grid=grid, width=16))
        torch.nn.init.normal_(adapter.out_projection.weight, std=2)
        adapter.save(paths.joint(CODEC, mllm) / "adapter")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("HF_DATASETS_CACHE", str(paths.root / "datasets"))
        patched.setenv("HF_HOME", str(paths.root / DATA / "home"))
        yield paths


def ask(checkout, task, mllm=MLLM):
    run_step("evaluate-task", mllm=mllm, task=task, paths=checkout)
    return read_json(task_folder(checkout, CODEC, mllm, task) / "scores.json")


@pytest.fixture(scope="module")
def scores(checkout):
    """What the step wrote of LLaVA, by task."""
    return {task: ask(checkout, task) for task in ASKED}


@pytest.fixture(scope="module")
def found(scores):
    """What the summary says of them."""
    return summarise_tasks(CODEC, scores, 50, 7)


def test_every_image_is_weighed_and_every_question_scored_at_every_setting(scores):
    for task in IMAGE_TASKS:
        found = scores[task]
        assert len(found["images"]) == len(found["pixels"]) == IMAGES
        assert {f"{m}-{q}" for m, qualities in found["scores"].items() for q in qualities} == set(SETTING_NAMES)
        for method, qualities in found["methods"].items():
            for files in qualities.values():
                assert len(files["bits"]) == IMAGES and min(files["bits"]) > min(files["header_bits"]) > 0, method
        for qualities in found["scores"].values():
            for values in qualities.values():
                assert len(values) == len(found["questions"]) and 0 <= min(values) <= max(values) <= 1
        assert {question["image"] for question in found["questions"]} == set(found["images"])
    assert scores["mme"]["pixels"] == [128 * 128] * IMAGES
    assert scores["mmmu_val"]["pixels"] == [2 * 128 * 128] * IMAGES  # a question shows two of them
    assert sum(scores["mme"]["methods"][CODEC]["8"]["bits"]) > sum(scores["mme"]["methods"][CODEC]["0"]["bits"])


def test_scores_add_up_to_those_of_lmms_eval(scores):
    mme = scores["mme"]
    for method, qualities in mme["scores"].items():
        for quality, values in qualities.items():
            pairs = {}
            for question, value in zip(mme["questions"], values, strict=True):
                pairs.setdefault(question["pair"], []).append(value)
            assert all(len(pair) == 2 for pair in pairs.values())
            expected = sum(100 * (sum(pair) / 2 + min(pair)) for pair in pairs.values()) / len(pairs)
            assert mme["lmms_eval"][method][quality]["mme_perception_score"] == pytest.approx(expected)
    for task, metric, best in (
        ("textvqa_val", "exact_match", 1),
        ("mmmu_val", "mmmu_acc", 1),
        ("mmbench_en_dev_static", "gpt_eval_score", 100),
    ):
        for method, qualities in scores[task]["scores"].items():
            for quality, values in qualities.items():
                told = scores[task]["lmms_eval"][method][quality][metric]
                assert told == pytest.approx(best * sum(values) / len(values), abs=1e-4)


def test_every_answer_is_kept(checkout, scores):
    samples = task_folder(checkout, CODEC, MLLM, "mme") / "samples"
    assert {path.stem for path in samples.glob("*.json")} == set(SETTING_NAMES)
    rows = list(read(samples, Setting("cotam", "4")))
    assert [row["score"] for row in rows] == scores["mme"]["scores"]["cotam"]["4"]
    assert {row["truth"] for row in rows} == {"Yes", "No"} and "single word" in rows[0]["prompt"]
    points = read_json(task_folder(checkout, CODEC, MLLM, "mme") / "metrics.json")
    assert {"bpp.cotam.4", "score.cotam.4.mme", "score.clean.mme"} <= points.keys()


def test_an_mllm_that_takes_no_videos_is_not_asked_about_them(scores, found):
    assert scores["videomme"]["questions"] == []
    assert set(found["clean"]["tasks"]) == set(IMAGE_TASKS)


def test_videos_are_coded_frame_by_frame(checkout):
    videos = ask(checkout, "videomme", INTERNVL)
    assert videos["pixels"] == [16 * 128 * 128] * len(videos["images"])
    assert len(videos["questions"]) == IMAGES and videos["methods"].keys() == {CODEC, "cotam"}
    entries = summarise_tasks(CODEC, {"videomme": videos}, 20, 7)
    assert "tasks_average" not in entries["cotam"]  # of image benchmarks
    assert entries["cotam"]["tasks"]["videomme"]["bd_score"]["videomme"]["value"] is not None


def test_the_second_mllm_has_nothing_encoded(checkout, scores, monkeypatch):
    caches = []

    class Watched(CodingCache):
        def __init__(self, *given):
            super().__init__(*given)
            caches.append(self)

    monkeypatch.setattr("components.evaluation.coding_cache.CodingCache", Watched)
    assert ask(checkout, "mme", INTERNVL)["methods"] == scores["mme"]["methods"]
    assert caches[0].encoded == 0 and caches[0].found == 6 * IMAGES


def killed(asked):
    """`TaskAsker.answer` of a process that is killed at its last setting; which were asked about goes to a list."""
    answer = TaskAsker.answer

    def answers(self, requests, setting):
        asked.append(setting)
        if setting == Setting("cotam", "4"):
            raise KeyboardInterrupt
        return answer(self, requests, setting)

    return answers


def test_a_killed_evaluation_goes_on_where_it_was(checkout, scores, monkeypatch):
    folder = task_folder(checkout, CODEC, MLLM, "mme")
    before, asked, answer = sha256_tree(folder), [], TaskAsker.answer
    monkeypatch.setattr(TaskAsker, "answer", killed(asked))
    with pytest.raises(KeyboardInterrupt):
        ask(checkout, "mme")
    assert sha256_tree(folder) == before
    monkeypatch.setattr(TaskAsker, "answer", lambda *given: (asked.append(given[-1]), answer(*given))[1])
    ask(checkout, "mme")
    assert sha256_tree(folder) == before
    assert asked.count(CLEAN) == 1 and asked.count(Setting("cotam", "4")) == 2


def test_a_killed_evaluation_begins_anew_on_other_data(checkout, scores, monkeypatch):
    asked = []
    monkeypatch.setattr(TaskAsker, "answer", killed(asked))
    for identity, times in (("some", 1), ("other", 2), ("some", 2)):
        monkeypatch.setattr(OfficialTask, "identity", identity)
        with pytest.raises(KeyboardInterrupt):
            ask(checkout, "mme")
        assert asked.count(CLEAN) == times


def test_a_task_is_another_where_questions_or_pictures_are(checkout, tmp_path):
    shutil.copytree(checkout.root / DATA / "lmms-lab-encoder/MME", tmp_path / DATA / "lmms-lab-encoder/MME")
    [file] = (tmp_path / DATA).rglob("*.parquet")
    table = pq.read_table(file)
    identities = [OfficialTask("mme", tmp_path).identity for _ in range(2)]
    assert identities[0] == identities[1]
    for change in (
        lambda rows: rows[0].update(question="Is there a cross in this image? Please answer yes or no."),
        lambda rows: rows[0].update(image=rows[-1]["image"]),
    ):
        rows = table.to_pylist()
        change(rows)
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), file)
        identities.append(OfficialTask("mme", tmp_path).identity)
    assert len(set(identities)) == 3


def test_pictures_are_those_that_the_codec_decoded(checkout, scores):
    """Bits are those of the files, the answers those about what comes out of them."""
    task, models = OfficialTask("textvqa_val", checkout.root), checkout.root / "pretrained"
    codec, mllm = Codec.from_pretrained(models / "codec/elic-micro"), load_mllm(models / f"mllm/{MLLM}")
    pictures = [document["image"] for document in task.task.dataset["validation"]]
    files = codec.encode(pictures, 4)
    assert scores["textvqa_val"]["methods"][CODEC]["4"]["bits"] == [8 * len(file) for file in files]
    views = mllm.views([decoded.image for decoded in codec.decode(files)])
    prompts = [request.args[0] for request in task.requests]
    adapter = LatentAdapter.load(checkout.joint(CODEC, MLLM) / "adapter")
    given = TaskAsker(Coder(codec), mllm, adapter, task.task_dict).answer(task.requests, Setting(CODEC, "4"))
    assert given.answers == [answer.split("ASSISTANT:")[0].strip() for answer in mllm.answer(views, prompts, 128)]


def test_bd_rates_have_intervals_over_the_images(found):
    assert found.keys() == {"clean", *METHODS}
    for method in METHODS:
        for task in IMAGE_TASKS:
            entry = found[method]["tasks"][task]
            assert [point["quality"] for point in entry["curve"]]
            assert ("bd_rate" in entry) == (method != CODEC)
    assert found["clean"]["tasks"]["mme"]["images"] == IMAGES
    assert found["cotam"]["tasks_average"]["tasks"] == [task for task in ASKED if task in AVERAGED_TASKS]


def rising(scores):
    """The same as if answers were better at every quality, better with cotam, and not all alike."""
    first = {"clean": 9, CODEC: 2, "cotam": 4, "jpeg": 1, "webp": 1}

    def right(method, quality, count):
        share = (first[method] + (0 if quality == "-" else int(quality) / 2)) / 10
        return [share + number % 3 / 50 for number in range(count)]

    changed = {}
    for task, told in scores.items():
        count = len(told["questions"])
        changed[task] = told | {
            "scores": {
                method: {quality: right(method, quality, count) for quality in qualities}
                for method, qualities in told.get("scores", {}).items()
            }
        }
    return changed


def test_the_report_shows_them_beside_the_drawn_benchmarks(scores, tmp_path):
    paths = write_run(tmp_path / "run")

    def report(name, **settings):
        (tmp_path / name).mkdir()
        params = Params(MADE_UP | {"evaluation": MADE_UP["evaluation"] | settings})
        step_report.run(StepInputs(params=params, work=tmp_path, out=tmp_path / name, paths=paths))
        return read_json(tmp_path / name / "summary.json"), (tmp_path / name / "index.html").read_text()

    without, page = report("without")
    assert 'id="tasks' not in page and tasks_section(without, CODEC, MLLM) is None
    for task, told in rising(scores).items():
        write_json(task_folder(paths, CODEC, MLLM, task) / "scores.json", told)
    summary, page = report("with", tasks=ASKED)
    of_cotam = summary["codecs"][CODEC]["cotam"][MLLM]
    for task in IMAGE_TASKS:
        saved = of_cotam["tasks"][task]["bd_rate"][task]
        assert saved["low"] <= saved["value"] <= saved["high"] and saved["value"] < 0
        assert LABELS[task] in page
    assert of_cotam["tasks_average"]["value"] < 0
    assert page.count('id="tasks"') == 1 and 'href="#tasks"' in page
    assert "average" in tasks_section(summary, CODEC, MLLM)["reading"]
    points = {point["key"] for point in summary_points(summary)}
    assert {f"bd_rate/{CODEC}.cotam.{MLLM}/lmms-eval.mme", f"score/{CODEC}.clean.{MLLM}/lmms-eval.mmmu_val"} < points
    out = io.StringIO()
    print_tables(summary, Console(file=out, width=200))
    assert "lmms-eval's own tasks" in out.getvalue() and "MMMU" in out.getvalue()
    for by_mllm in summary["codecs"][CODEC].values():  # nothing else has changed
        by_mllm[MLLM].pop("tasks"), by_mllm[MLLM].pop("tasks_average", None)
    assert summary == without


def test_the_settings_know_the_tasks_that_can_be_evaluated():
    assert get_args(config.Task) == tuple(RULES) == tuple(LABELS)
    assert set(AVERAGED_TASKS) < set(RULES)


def test_missing_data_and_columns_are_one_sentence(checkout, scores, tmp_path):
    from datasets import Dataset

    shutil.copytree(checkout.root / DATA / "lmms-lab-encoder/MME", tmp_path / DATA / "lmms-lab-encoder/MME")
    [file] = (tmp_path / DATA).rglob("*.parquet")
    Dataset.from_parquet(str(file), cache_dir=str(tmp_path / "datasets")).remove_columns("category").to_parquet(file)
    with pytest.raises(CotamError, match=r": The benchmark mme has no column 'category'; fetch its files again\.$"):
        OfficialTask("mme", tmp_path)
    with pytest.raises(CotamError) as told:
        OfficialTask("pope", tmp_path)
    sentence = str(told.value)
    assert sentence.startswith(f"lmms-eval's data ({DATA}, docs/lmms-eval.md): The benchmark pope is neither in a ")
    assert "lmms-lab-encoder/POPE here" in sentence and "\n" not in sentence

