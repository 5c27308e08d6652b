"""The step `evaluate`: answers come from the files, add up to the scores, and survive a kill."""

import json
import math
import multiprocessing
import shutil
import time
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components import config
from components.adapter import AdapterConfig, LatentAdapter
from components.codec import Codec
from components.errors import CotamError
from components.evaluation.benchmarks import BENCHMARKS
from components.evaluation.evaluate import Job, Models, evaluate
from components.evaluation.samples import read
from components.evaluation.scores import COLUMNS, LEVELS
from components.evaluation.streams import CLEAN, Setting, Streams, write_streams
from components.files import sha256_tree
from components.mllm import load_mllm
from components.steps import run_step
from tests.models import WIDTH
from tests.small_checkout import CODEC, MLLM, tiny_codec_folder, write_checkout, write_small_benchmarks

SETTINGS = {
    "evaluation.qualities": "[0, 9]",
    "evaluation.jpeg_qualities": "[5]",
    "evaluation.webp_qualities": "[5]",
}
SETTING_NAMES = ["clean", f"{CODEC}.0", f"{CODEC}.9", "cotam.0", "cotam.9", "jpeg.5", "webp.5"]
STYLES = ("bench", "train")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    paths = write_checkout(tmp_path_factory.mktemp("checkout"), SETTINGS)
    write_small_benchmarks(paths, 3)
    run_step("rate", paths=paths)
    write_adapter(paths.joint(CODEC, MLLM) / "adapter")
    run_step("evaluate", paths=paths)
    return paths


def write_adapter(folder, channels=12):
    torch.manual_seed(3)
    adapter = LatentAdapter(AdapterConfig(latent_channels=channels, feature_dim=WIDTH, grid=(8, 8), width=16))
    torch.nn.init.normal_(adapter.out_projection.weight, std=2)
    adapter.save(folder)


@pytest.fixture(scope="module")
def models(checkout):
    return Models(
        codec=checkout.root / "pretrained/codec/elic-micro",
        mllm=checkout.root / "pretrained/mllm/micro-llava",
        adapter=checkout.joint(CODEC, MLLM) / "adapter",
        benchmarks=checkout.benchmarks,
        streams=checkout.rate(CODEC) / "streams.zip",
    )


@pytest.fixture(scope="module")
def outcomes(models, tmp_path_factory):
    """The benchmarks' style, asked about in two processes: (what was found, the work folder)."""
    work = tmp_path_factory.mktemp("work")
    return evaluate(models, ["bench"], work, workers=2), work


@pytest.fixture(scope="module")
def scores(checkout):
    return json.loads((checkout.scores(CODEC, MLLM) / "scores.json").read_text())


def test_answers_are_about_what_was_decoded_from_the_files(checkout, models):
    codec, mllm = Codec.from_pretrained(models.codec), load_mllm(models.mllm)
    samples = checkout.scores(CODEC, MLLM) / "samples"
    given = {}
    for method in (CODEC, "cotam"):
        files = Streams(models.streams).files(Setting(method, "9"), "bench")
        decoded = codec.decode(list(files.values()))
        if method == "cotam":
            shown = mllm.decoded_views(decoded, LatentAdapter.load(models.adapter))
        else:
            shown = mllm.views([one.image for one in decoded])
        views = dict(zip(files, shown, strict=True))
        rows = list(read(samples, Setting(method, "9")))
        given[method] = [row["answer"] for row in rows]
        assert given[method] == mllm.answer([views[row["image"]] for row in rows], [row["prompt"] for row in rows], 8)
    assert given[CODEC] != given["cotam"]


def test_every_answer_is_kept(checkout, scores):
    samples = checkout.scores(CODEC, MLLM) / "samples"
    lines = (samples / "questions.jsonl").read_text().splitlines()
    assert {json.loads(line)["benchmark"] for line in lines} == set(BENCHMARKS)
    names = {f"{name.replace('.', '-')}.json" for name in SETTING_NAMES[1:]}
    assert {path.name for path in samples.iterdir()} == {*names, "clean--.json", "questions.jsonl"}
    for setting in (CLEAN, Setting("cotam", "0")):
        worth = {}
        for row in read(samples, setting):
            key = (row["benchmark"], row["id"])
            worth[key] = min(worth.get(key, 1), row["score"])
        assert list(worth.values()) == scores["styles"]["bench"]["scores"][setting.method][setting.quality]


def test_scores_are_of_every_question_at_every_setting(scores):
    for style in STYLES:
        found = scores["styles"][style]
        settings = [
            method if method == "clean" else f"{method}.{quality}"
            for method, qualities in found["scores"].items()
            for quality in qualities
        ]
        assert sorted(settings) == sorted(SETTING_NAMES if style == "bench" else SETTING_NAMES[:-2])
        for qualities in found["scores"].values():
            for values in qualities.values():
                assert len(values) == len(found["questions"])
                assert all(0 <= value <= 1 for value in values)
    assert len(scores["styles"]["bench"]["questions"]) > len(scores["styles"]["train"]["questions"])


def test_bits_are_those_of_the_rates_and_clean_images_have_none(checkout, scores):
    rates = json.loads((checkout.rate(CODEC) / "rates.json").read_text())
    for style in STYLES:
        bits = scores["styles"][style]["bits"]
        assert set(bits) == ({CODEC, "cotam", "jpeg", "webp"} if style == "bench" else {CODEC, "cotam"})
        for method, qualities in bits.items():
            measured = rates["styles"][style]["methods"][method]
            assert qualities == {quality: sum(entry["bits"]) for quality, entry in measured.items()}


def test_metrics_are_flat_and_finite(checkout, scores):
    found = json.loads((checkout.scores(CODEC, MLLM) / "metrics.json").read_text())
    assert all(isinstance(value, int | float) and math.isfinite(value) for value in found.values())
    expected = {f"score.{name}.{column}" for name in SETTING_NAMES for column in (*COLUMNS, "mme_accuracy_plus")}
    rated = {f"bpp.{name}" for name in SETTING_NAMES[1:]}
    assert expected | rated <= set(found)
    assert {name for name in found if name.startswith("bpp.")} == rated
    levels = {name for name in found if name.startswith("score.") and name.rpartition(".")[2] in LEVELS}
    assert {name for name in set(found) - expected - rated - levels if not name.startswith("bd_rate.")} == set()
    style = scores["styles"]["bench"]
    assert found["bpp.cotam.9"] == style["bits"]["cotam"]["9"] / style["pixels"]
    pope = [
        value
        for question, value in zip(style["questions"], style["scores"]["cotam"]["9"], strict=True)
        if question["benchmark"] == "pope"
    ]
    assert found["score.cotam.9.pope"] == pytest.approx(100 * np.mean(pope))


def test_more_processes_than_the_step_had_say_the_same(checkout, outcomes, scores):
    style = scores["styles"]["bench"]
    assert len(outcomes[0]) == len(SETTING_NAMES)
    for job, found in outcomes[0].items():
        method, quality = job.setting.method, job.setting.quality
        assert found["questions"] == style["questions"]
        assert found["scores"] == style["scores"][method][quality]
        assert found["lmms_eval"] == style["lmms_eval"][method][quality]
        rows = read(checkout.scores(CODEC, MLLM) / "samples", job.setting)
        assert found["answers"] == [[row["answer"], row["score"]] for row in rows]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a process that uses a GPU cannot be forked")
def test_a_killed_evaluation_goes_on_where_it_was(models, outcomes, tmp_path):
    process = multiprocessing.get_context("fork").Process(target=evaluate, args=(models, ["bench"], tmp_path, 2))
    process.start()
    end = time.monotonic() + 120
    while not list(tmp_path.glob("*.json")):
        assert time.monotonic() < end
        time.sleep(0.005)
    process.kill()
    process.join()
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    assert 0 < len(finished) < len(outcomes[0])
    assert evaluate(models, ["bench"], tmp_path, workers=2) == outcomes[0]
    assert {path: path.stat().st_mtime_ns for path in finished} == finished


def test_a_finished_evaluation_asks_nobody(models, outcomes):
    nowhere = replace(models, mllm=models.mllm / "nowhere", adapter=None)
    for workers in (1, 2):
        assert evaluate(nowhere, ["bench"], outcomes[1], workers) == outcomes[0]


@pytest.mark.parametrize("workers", [1, 2])
def test_models_that_do_not_fit_are_one_sentence(models, tmp_path, workers):
    write_adapter(tmp_path / "adapter", channels=13)
    with pytest.raises(CotamError, match="use the adapter that was trained on this codec"):
        evaluate(replace(models, adapter=tmp_path / "adapter"), ["bench"], tmp_path / "work", workers)
    other = replace(models, codec=tiny_codec_folder(tmp_path / "codec", seed=6))
    with pytest.raises(CotamError, match="decode it with the codec that made it"):
        evaluate(other, ["bench"], tmp_path / "work", workers)


def test_streams_of_other_benchmarks_are_refused(models, tmp_path):
    shutil.copytree(models.benchmarks, tmp_path / "benchmarks")
    (tmp_path / "benchmarks/bench/images/000001.png").rename(tmp_path / "benchmarks/bench/images/000009.png")
    with pytest.raises(CotamError, match=r"streams\.zip does not belong to these benchmarks .*; run `dvc repro rate`"):
        evaluate(replace(models, benchmarks=tmp_path / "benchmarks"), ["bench"], tmp_path / "work", 1)
    with pytest.raises(CotamError, match="has no images; run `dvc repro benchmarks`"):
        evaluate(replace(models, benchmarks=tmp_path), ["bench"], tmp_path / "work", 1)


FILES = {"000000": bytes(range(200)), "000001": b"another", "000002": b""}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "streams.zip"
    settings = [CLEAN, Setting("cotam", "3"), Setting("jpeg", "50")]
    write_streams(path, ((setting, style, FILES) for setting in settings[1:] for style in STYLES))
    return path


def test_streams_are_read_as_they_were_written(archive):
    streams = Streams(archive)
    assert streams.settings("bench") == [Setting("cotam", "3"), Setting("jpeg", "50")]
    assert streams.files(Setting("jpeg", "50"), "train") == FILES
    with pytest.raises(CotamError, match=r"has no images of style bench coded by webp at 5; run `dvc repro rate`"):
        streams.files(Setting("webp", "5"), "bench")
    with zipfile.ZipFile(archive) as found:
        assert found.namelist()[0] == "cotam/3/bench/000000.cotam"
        assert {info.compress_type for info in found.infolist()} == {zipfile.ZIP_STORED}


@settings(max_examples=100)
@given(st.data())
def test_a_damaged_archive_is_one_sentence_and_never_other_files(archive, tmp_path_factory, data):
    content = bytearray(archive.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    damaged = tmp_path_factory.getbasetemp() / "damaged.zip"
    damaged.write_bytes(content)
    try:
        streams = Streams(damaged)
        streams.check("bench", FILES)
        found = [streams.files(setting, "bench") for setting in streams.settings("bench")]
    except CotamError as error:
        assert str(error).startswith(f"{damaged} ")
        assert str(error).endswith("; run `dvc repro rate`.")
        assert "\n" not in str(error)
    else:
        assert all(files == FILES for files in found)


def test_the_step_says_so_when_its_streams_are_damaged(checkout, models):
    before = sha256_tree(checkout.scores(CODEC, MLLM))
    whole = models.streams.read_bytes()
    models.streams.write_bytes(whole[:-100])
    try:
        with pytest.raises(CotamError, match=r"streams\.zip holds no coded benchmarks .*; run `dvc repro rate`\.$"):
            run_step("evaluate", paths=checkout)
    finally:
        models.streams.write_bytes(whole)
    assert sha256_tree(checkout.scores(CODEC, MLLM)) == before


def test_jobs_are_kept_under_names_of_their_own(checkout):
    qualities = config.load(checkout.root / "params.yaml").evaluation.qualities
    jobs = [Job(Setting(method, str(q)), style) for q in qualities for method in (CODEC, "cotam") for style in STYLES]
    assert len({job.file for job in jobs}) == len(jobs) == 8
