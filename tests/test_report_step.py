"""The report step on the files of a whole run: summary, page, pictures, and the same bytes again."""

import json

import numpy as np
import pytest
from PIL import Image

from benchmarks import result_picture
from components.codec import level_map
from components.errors import CotamError
from components.evaluation.allocation import allocate
from components.reporting import step_report
from components.reporting.collect import CodedFiles, find_examples, matched_settings
from components.reporting.examples import read_answers
from components.step_inputs import Params, StepInputs
from tests.made_up_run import CODEC, IMAGES, MLLM, QUALITIES, SETTINGS, write_run


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("checkout"))


def run(paths, out):
    out.mkdir()
    step_report.run(StepInputs(params=Params(SETTINGS), work=out, out=out, paths=paths))
    return out


@pytest.fixture(scope="module")
def out(paths, tmp_path_factory):
    return run(paths, tmp_path_factory.mktemp("report") / "out")


@pytest.fixture(scope="module")
def summary(out):
    return json.loads((out / "summary.json").read_text())


@pytest.fixture(scope="module")
def coded(paths):
    return CodedFiles(paths, CODEC, paths.root / "pretrained/codec")


def test_the_step_writes_what_it_declares_and_the_record_elsewhere(out, paths):
    assert {path.name for path in out.iterdir()} == {"index.html", "summary.json"}
    record = json.loads((paths.report / "run.json").read_text())
    assert record.keys() == {"begun", "seconds", "python", "revision", "dirty"}


def test_the_summary_has_every_part(summary):
    assert summary["codecs"][CODEC].keys() == {"clean", CODEC, "cotam", "jpeg", "webp"}
    assert summary["codecs"][CODEC]["cotam"][MLLM]["bd_rate"]["mean"]["value"] < 0
    assert summary["adapter"][f"{CODEC}-{MLLM}"]["qualities"] == list(QUALITIES)
    assert summary["adapter"][f"{CODEC}-{MLLM}"]["low"] == {
        "without": [1.0] * 4,
        "warmup": [0.7] * 4,
        "joint": [0.5] * 4,
    }
    assert summary["allocation"][CODEC].keys() == {"raised", "lowered"}


def test_the_page_shows_pictures_and_where_they_came_from(out):
    page = (out / "index.html").read_text()
    assert page.count("data:image/png;base64,") >= 3 * 4 + 3
    for text in ("Where the bits go", "is there a", "ab" * 32, "evaluation.bootstrap"):
        assert text in page


def test_equal_files_give_equal_results(out, paths, tmp_path):
    again = run(paths, tmp_path / "out")
    for name in ("index.html", "summary.json"):
        assert (again / name).read_bytes() == (out / name).read_bytes()


def test_bits_of_places_add_up_to_about_the_files(coded):
    found = allocated(coded, QUALITIES[-1])
    for bits_hw, size in ((found.plain_hw, found.plain_bytes), (found.guided_hw, found.guided_bytes)):
        assert bits_hw.shape == (4, 4)
        assert bits_hw.min() >= 0
        # The header, the hyper latent and the map are not in it.
        assert 0.5 * 8 * (size - 40) < bits_hw.sum() < 8 * size


def test_the_map_that_is_shown_is_the_map_that_was_coded(coded):
    grid = np.array([[1, 0], [0, -1]], np.int8)
    expected = level_map.quality_map(QUALITIES[1], (4, 4), grid, 10) - QUALITIES[1]
    assert np.array_equal(allocated(coded, QUALITIES[1]).levels_hw, expected)


def allocated(coded, quality):
    """The first image's guided file of this quality, beside the nearest one without a map."""
    plain = {q: coded.files(CODEC, q)[IMAGES[0]] for q in QUALITIES}
    guided = coded.files("cotam", quality)[IMAGES[0]]
    return allocate(coded.codec, coded.original(IMAGES[0]), guided, plain, quality)


def test_a_missing_input_is_said_in_one_sentence(paths, tmp_path):
    other = SETTINGS | {"mllms": ("nobody",)}
    with pytest.raises(CotamError, match=r"scores\.json does not exist"):
        step_report.run(StepInputs(params=Params(other), work=tmp_path, out=tmp_path, paths=paths))


def test_the_picture_for_the_readme_is_drawn(summary, paths, coded, tmp_path):
    curves = {method: summary["codecs"][CODEC][method][MLLM]["curve"] for method in (CODEC, "cotam")}
    at = matched_settings(curves, CODEC)
    answers = read_answers(paths.scores(CODEC, MLLM) / "samples", {"clean": "-", **at})
    example = find_examples(coded, answers, at)[0]
    result_picture.draw(summary, CODEC, MLLM, example, tmp_path / "result.png")
    assert Image.open(tmp_path / "result.png").size == (1600, 640)
