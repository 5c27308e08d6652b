"""Videos in the pipeline: written, coded frame by frame, asked about by the MLLMs that take them, and added up."""

import io
import json
import zipfile

import numpy as np
import pytest
import torch
from rich.console import Console

from components import config
from components.adapter import AdapterConfig, LatentAdapter
from components.codec import Codec
from components.codec.video_container import unpack
from components.errors import CotamError
from components.evaluation.clip_benchmark import write_clips
from components.evaluation.clip_suite import ClipSuite
from components.evaluation.clips import FRAMES, clip_file, clip_names, clip_pixels, clip_questions, open_clip
from components.evaluation.coding import Coder, load_guide
from components.evaluation.evaluate import Job, Models, evaluate
from components.evaluation.pictures import psnr
from components.evaluation.samples import read
from components.evaluation.streams import CLIPS, Setting, Streams, write_streams
from components.evaluation.summary import summarise
from components.files import read_json, sha256_tree
from components.mllm import load_mllm
from components.reporting.page import render
from components.reporting.table import print_tables
from components.reporting.videos import videos_claim
from components.steps import run_step
from flows.records import summary_points
from tests.models import WIDTH as LLAVA_WIDTH
from tests.models_tiled import GRID, WIDTH
from tests.small_checkout import CODEC, write_checkout

COUNT = 3
LLAVA, INTERNVL = "micro-llava", "micro-internvl"
QUALITIES = ("0", "9")
METHODS = (CODEC, "cotam")
SETTINGS = {
    "mllms": f"[{LLAVA}, {INTERNVL}]",
    "mllm": f"{{{LLAVA}: {{weights: pretrained/mllm/{LLAVA}}}, {INTERNVL}: {{weights: pretrained/mllm/{INTERNVL}}}}}",
    "evaluation.images": "2",
    "evaluation.clips": str(COUNT),
    "evaluation.qualities": "[0, 9]",
    "evaluation.jpeg_qualities": "[5]",
    "evaluation.webp_qualities": "[5]",
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    paths = write_checkout(tmp_path_factory.mktemp("checkout"), SETTINGS)
    run_step("benchmarks", paths=paths)
    run_step("rate", paths=paths)
    for mllm, width, grid in ((LLAVA, LLAVA_WIDTH, 8), (INTERNVL, WIDTH, GRID)):
        torch.manual_seed(3)
        adapter = LatentAdapter(AdapterConfig(latent_channels=12, feature_dim=width, grid=(grid, grid), width=16))
        torch.nn.init.normal_(adapter.out_projection.weight, std=2)
        adapter.save(paths.joint(CODEC, mllm) / "adapter")
        run_step("evaluate", mllm=mllm, paths=paths)
    return paths


@pytest.fixture(scope="module")
def folder(checkout):
    return checkout.benchmarks / CLIPS


@pytest.fixture(scope="module")
def rates(checkout):
    return read_json(checkout.rate(CODEC) / "rates.json")


@pytest.fixture(scope="module")
def scores(checkout):
    return {mllm: read_json(checkout.scores(CODEC, mllm) / "scores.json") for mllm in (LLAVA, INTERNVL)}


@pytest.fixture(scope="module")
def streams(checkout):
    return Streams(checkout.rate(CODEC) / "streams.zip")


@pytest.fixture(scope="module")
def models(checkout):
    return Models(
        codec=checkout.root / "pretrained/codec/elic-micro",
        mllm=checkout.root / "pretrained/mllm" / INTERNVL,
        adapter=checkout.joint(CODEC, INTERNVL) / "adapter",
        benchmarks=checkout.benchmarks,
        streams=checkout.rate(CODEC) / "streams.zip",
    )


@pytest.fixture(scope="module")
def summary(rates, scores):
    found = summarise({CODEC: rates}, {(CODEC, mllm): scored for mllm, scored in scores.items()}, 50, 7)
    return json.loads(json.dumps(found, allow_nan=False)) | {"adapter": {}}


def test_the_setting_is_a_count(tmp_path):
    assert config.load().evaluation.clips == 0  # the demo has no videos
    for value in ("-1", "1.5", "many"):
        with pytest.raises(CotamError, match=r"^params.yaml: evaluation\.clips must be "):
            config.load(overrides={"evaluation.clips": value})
    with pytest.raises(CotamError, match=r"evaluation\.clips must be 0 where guidance\.levels is above 3"):
        config.load(overrides={"evaluation.clips": "2", "guidance.levels": "5", "variants": "{}"})
    # A variant of more levels is asked about images alone.
    changed = config.load(overrides={"evaluation.clips": "2"}).changed("levels-5")
    assert (changed["guidance"]["levels"], changed["evaluation"]["clips"]) == (5, 0)


def test_equal_seeds_write_equal_clips(folder, tmp_path):
    seed, size = config.load().seed, config.load().scenes.size
    write_clips(tmp_path / "again", COUNT, "bench", seed, size)
    write_clips(tmp_path / "other", COUNT, "bench", seed + 1, size)
    assert sha256_tree(tmp_path / "again") == sha256_tree(folder) != sha256_tree(tmp_path / "other")
    assert [len(open_clip(folder, name).frames) for name in clip_names(folder)] == [FRAMES] * COUNT
    asked = [question["image"] for question in clip_questions(folder)]
    assert asked == [f"clip-{number // 2:06d}" for number in range(2 * COUNT)]


def test_pixels_are_those_of_the_frames(folder, tmp_path):
    frames = {name: open_clip(folder, name).frames for name in clip_names(folder)}
    assert clip_pixels(folder) == {name: sum(one[..., 0].size for one in found) for name, found in frames.items()}
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/clip-000000.apng").write_bytes(clip_file(folder, "clip-000000").read_bytes()[:20])
    with pytest.raises(CotamError, match=r"clip-000000\.apng cannot be read .*; run `dvc repro benchmarks`\.$"):
        clip_pixels(tmp_path)


def test_what_is_missing_or_damaged_is_one_sentence(folder, tmp_path):
    write_clips(tmp_path / "clips", 1, "bench", 7, 64)
    (tmp_path / "clips/videos/clip-000000.apng").rename(tmp_path / "elsewhere.apng")
    with pytest.raises(CotamError, match=r"has no clip clip-000000; run `dvc repro benchmarks`\.$"):
        ClipSuite(tmp_path / "clips", None)
    (tmp_path / "clips/videomme.parquet").write_bytes(b"PAR1")
    with pytest.raises(CotamError, match=r"videomme\.parquet cannot be read .*; run `dvc repro benchmarks`\.$"):
        clip_questions(tmp_path / "clips")
    (tmp_path / "clips/videomme.parquet").unlink()
    with pytest.raises(CotamError, match=r"has no videomme\.parquet; run `dvc repro benchmarks`\.$"):
        ClipSuite(tmp_path / "clips", None)
    with pytest.raises(CotamError, match=r"has no clips; run `dvc repro benchmarks`\.$"):
        clip_names(tmp_path)


def test_rates_are_those_of_the_files(folder, rates, streams):
    style = rates["styles"][CLIPS]
    assert style["images"] == clip_names(folder)
    assert style["pixels"] == [FRAMES * 128 * 128] * COUNT
    assert {method: tuple(entry) for method, entry in style["methods"].items()} == dict.fromkeys(METHODS, QUALITIES)
    with zipfile.ZipFile(streams.path) as archive:
        names = [name for name in archive.namelist() if f"/{CLIPS}/" in name]
    assert len(names) == COUNT * len(METHODS) * len(QUALITIES) and all(name.endswith(".cotamv") for name in names)
    for method in METHODS:
        for quality in QUALITIES:
            entry, files = style["methods"][method][quality], streams.files(Setting(method, quality), CLIPS)
            assert entry["bits"] == [8 * len(content) for content in files.values()]
            payloads = [sum(frame.words for frame in unpack(content)[0].frames) for content in files.values()]
            bare = [bits - 32 * words for bits, words in zip(entry["bits"], payloads, strict=True)]
            assert entry["header_bits"] == bare and min(bare) > 0


def test_every_frame_is_coded_as_the_image_that_it_is(checkout, folder, rates, streams, models):
    codec = Codec.from_pretrained(models.codec)
    guidance = config.load(checkout.root / "params.yaml").guidance.model_dump()
    guide = load_guide(**guidance | {"tower": checkout.root / guidance["tower"]})
    coder = Coder(codec, guide)
    [name, *_] = clip_names(folder)
    frames = open_clip(folder, name).frames
    for method in METHODS:
        video, found = unpack(streams.files(Setting(method, "9"), CLIPS)[name])
        singly = coder.encode(Setting(method, "9"), dict(enumerate(frames)))
        assert found == list(singly.values())
        assert video.times == [250 * number for number in range(FRAMES)]
        decoded = np.stack([one.image for one in codec.decode(found)])
        told = rates["styles"][CLIPS]["methods"][method]["9"]["psnr"][0]
        assert told == pytest.approx(psnr(np.stack(frames), decoded), abs=1e-3)


def test_answers_are_about_what_was_decoded_and_the_adapter_speaks_for_every_frame(checkout, folder, streams, models):
    codec, mllm = Codec.from_pretrained(models.codec), load_mllm(models.mllm)
    adapter = LatentAdapter.load(models.adapter)
    questions, given = clip_questions(folder), {}
    for method, quality in (("clean", "-"), (CODEC, "9"), ("cotam", "9")):
        if method == "clean":
            videos = [open_clip(folder, name).frames for name in clip_names(folder)]
        else:
            files = streams.files(Setting(method, quality), CLIPS)
            decoded = [list(codec.decode_video(content)) for content in files.values()]
            videos = decoded if method == "cotam" else [[one.image for one in frames] for frames in decoded]
        views = mllm.video_views(videos, adapter if method == "cotam" else None)
        seen = dict(zip(clip_names(folder), views, strict=True))
        if method == "cotam":
            assert all(view.residual_ND.abs().max() > 0 for one in views for view in one.views)
        rows = list(read(checkout.scores(CODEC, INTERNVL) / "samples" / CLIPS, Setting(method, quality)))
        assert [row["id"] for row in rows] == [question["id"] for question in questions]
        given[method] = [row["answer"] for row in rows]
        assert given[method] == mllm.answer([seen[row["image"]] for row in rows], [row["prompt"] for row in rows], 8)
    assert given[CODEC] != given["cotam"]


def test_right_answers_are_right_and_others_are_not(folder):
    class Oracle:
        def answer(self, views, prompts, max_new_tokens):
            return [truth[view, prompt] for view, prompt in zip(views, prompts, strict=True)]

    questions = clip_questions(folder)
    truth = {(question["image"], question["prompt"]): question["answer"] for question in questions}
    truth[questions[-1]["image"], questions[-1]["prompt"]] = "perhaps"
    names = clip_names(folder)
    portions = [{name: name for name in part} for part in (names[:2], names[2:])]
    outcome = ClipSuite(folder, Oracle()).run(portions)
    assert [one.score for one in outcome.asked] == [1] * (2 * COUNT - 1) + [0]
    share = 100 * (2 * COUNT - 1) / (2 * COUNT)
    assert outcome.aggregates["videomme"]["videomme_perception_score"] == pytest.approx(share)
    with pytest.raises(ValueError, match="nothing was seen of clip-000002"):
        ClipSuite(folder, Oracle()).run(portions[:1])


def test_an_mllm_that_takes_no_videos_is_asked_about_none(checkout, scores):
    assert set(scores[LLAVA]["styles"]) == {"bench", "train"}
    assert set(scores[INTERNVL]["styles"]) == {"bench", "train", CLIPS}
    for mllm, there in ((LLAVA, False), (INTERNVL, True)):
        metrics = read_json(checkout.scores(CODEC, mllm) / "metrics.json")
        assert (checkout.scores(CODEC, mllm) / "samples" / CLIPS).is_dir() == there
        assert ("clips.score.cotam.0.videomme" in metrics) == ("clips.bpp.cotam.0" in metrics) == there


def test_scores_and_bits_belong_to_the_clips(rates, scores):
    style, coded = scores[INTERNVL]["styles"][CLIPS], rates["styles"][CLIPS]
    assert style["pixels"] == sum(coded["pixels"])
    assert len(style["questions"]) == 2 * COUNT
    assert {question["benchmark"] for question in style["questions"]} == {"videomme"}
    for method in METHODS:
        assert style["bits"][method] == {q: sum(entry["bits"]) for q, entry in coded["methods"][method].items()}
        for quality in QUALITIES:
            told = style["lmms_eval"][method][quality]["videomme"]["videomme_perception_score"]
            assert told == pytest.approx(100 * np.mean(style["scores"][method][quality]))


def test_coded_clips_that_are_damaged_or_missing_are_refused(streams, models, tmp_path):
    setting = Setting("cotam", "9")
    coded = {}
    for style in ("bench", "train", CLIPS):
        coded |= {(one, style): streams.files(one, style) for one in streams.settings(style)}

    def evaluated(name):
        write_streams(tmp_path / name, ((one, style, files) for (one, style), files in coded.items()))
        broken = Models(models.codec, models.mllm, models.adapter, models.benchmarks, tmp_path / name)
        return evaluate(broken, [CLIPS], tmp_path / f"{name}.work", 1, [setting])

    assert set(evaluated("whole.zip")) == {Job(setting, CLIPS)}
    whole = coded[setting, CLIPS]["clip-000001"]
    for name, content in (
        ("flipped.zip", whole[:-9] + bytes([whole[-9] ^ 4]) + whole[-8:]),
        ("short.zip", whole[:-4]),
        ("none.zip", b"nothing of the kind"),
    ):
        coded[setting, CLIPS] = coded[setting, CLIPS] | {"clip-000001": content}
        with pytest.raises(CotamError, match=r"^The coded clip clip-000001 cannot be read: "):
            evaluated(name)
    del coded[setting, CLIPS]["clip-000001"]
    with pytest.raises(CotamError, match=r"does not belong to these benchmarks \(style clips\); run "):
        evaluated("fewer.zip")


def test_the_summary_has_the_videos_of_who_takes_them(summary, scores, rates):
    methods = summary["codecs"][CODEC]
    assert not any("clips" in by_mllm[LLAVA] for by_mllm in methods.values())
    assert {method for method, by_mllm in methods.items() if "clips" in by_mllm[INTERNVL]} == {"clean", *METHODS}
    clips = {method: methods[method][INTERNVL]["clips"] for method in ("clean", *METHODS)}
    style = scores[INTERNVL]["styles"][CLIPS]
    [point] = clips["clean"]["curve"]
    assert point["bpp"] is None
    assert point["scores"] == {"videomme": pytest.approx(100 * np.mean(style["scores"]["clean"]["-"]))}
    for method in METHODS:
        assert sorted(str(point["quality"]) for point in clips[method]["curve"]) == sorted(QUALITIES)
        for point in clips[method]["curve"]:
            bits = rates["styles"][CLIPS]["methods"][method][str(point["quality"])]["bits"]
            assert point["bpp"] == pytest.approx(sum(bits) / style["pixels"])
            assert 0 < point["bpp_without_header"] < point["bpp"]
            right = np.mean(style["scores"][method][str(point["quality"])])
            assert point["scores"]["videomme"] == pytest.approx(100 * right)
        for rows in clips[method]["levels"].values():
            assert [row["quality"] for row in rows] == [point["quality"] for point in clips[method]["curve"]]
    assert clips["cotam"]["bd_rate"].keys() == clips["cotam"]["bd_score"].keys() == {"videomme"}
    assert "bd_rate" not in clips[CODEC]


def test_the_page_and_the_terminal_show_them(summary):
    page = render(summary, {}, [])
    assert page.count('<section id="videos') == 1
    assert f'<section id="videos-{CODEC}-{INTERNVL}">' in page and 'id="claim-C23"' in page
    text = io.StringIO()
    print_tables(summary, Console(file=text, width=80))
    assert text.getvalue().count("about videos") == text.getvalue().count("of micro-internvl about videos") == 1
    assert max(map(len, text.getvalue().splitlines())) <= 80


def test_mlflow_gets_their_curves(summary):
    points = list(summary_points(summary))
    curve = summary["codecs"][CODEC]["cotam"][INTERNVL]["clips"]["curve"]
    expected = [(point["scores"]["videomme"], round(1000 * point["bpp"])) for point in curve]
    name = f"score/{CODEC}.cotam.{INTERNVL}/videomme"
    assert [(point["value"], point["step"]) for point in points if point["key"] == name] == expected
    assert not any(f"{LLAVA}/videomme" in point["key"] for point in points)


@pytest.mark.parametrize(
    ("rate", "verdict"),
    [((-20, -30, -5), "holds"), ((9, 2, 20), "fails"), ((-9, -30, 4), "unclear"), ((None, None, None), "unclear")],
)
def test_the_claim_follows_the_interval(summary, rate, verdict):
    changed = json.loads(json.dumps(summary))
    told = dict(zip(("value", "low", "high"), rate, strict=True))
    changed["codecs"][CODEC]["cotam"][INTERNVL]["clips"]["bd_rate"]["videomme"] = told
    claim = videos_claim(changed, CODEC)
    assert (claim.id, claim.verdict) == ("C23", verdict)
    assert f"{INTERNVL} answers" in claim.here and LLAVA not in claim.here
    assert "against ELIC" in claim.here and ("not defined" in claim.here) == (rate[0] is None)
