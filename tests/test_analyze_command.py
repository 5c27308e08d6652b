"""`cotam analyze`, as it is typed."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from components import cli
from components.analysis.levels import join
from components.baselines import conventional
from components.commands import analyze as command
from components.errors import CotamError
from components.evaluation.pictures import benchmark_pictures
from components.evaluation.streams import Streams, write_streams
from components.files import sha256_tree
from components.paths import ROOT
from tests.made_up_run import CODEC, MLLM, QUALITIES, write_run
from tests.models import tiny_clip_folder
from tests.pictures import folder_of
from tests.towers import clip_l_336_folder, internvit_folder, siglip_folder

FIGURES = (
    "fig03-flow",
    "fig04-stages",
    "fig05-distance-similarity",
    "fig20-distance",
    "fig24-cls-attention",
    "fig25-pca",
    "fig26-flow-averaged",
    "fig26-flow-layers",
    "flow-shares",
    "summary-tokens",
)


@pytest.fixture(autouse=True)
def no_run_here(monkeypatch, tmp_path_factory):
    """Whether somebody has run the pipeline in this checkout is not a test's business."""
    monkeypatch.setattr(command, "ROOT", tmp_path_factory.mktemp("no-run"))


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    """A finished run, made up but for its files, which can all be decoded."""
    root = tmp_path_factory.mktemp("run")
    paths = write_run(root)
    pictures = benchmark_pictures(paths.benchmarks / "bench")
    file = paths.rate(CODEC) / "streams.zip"
    streams, encode = Streams(file), {"jpeg": conventional.jpeg_encode, "webp": conventional.webp_encode}
    coded = []
    for setting in streams.settings("bench"):
        files = streams.files(setting, "bench")
        if setting.method in encode:
            files = {name: encode[setting.method](pictures[name], 10 * int(setting.quality) + 1) for name in files}
        coded.append((setting, "bench", files))
    write_streams(file, coded)
    text = (ROOT / "params.yaml").read_text().replace("pretrained/codec/elic-micro", "pretrained/codec")
    (root / "params.yaml").write_text(text)
    return root


@pytest.fixture(scope="module")
def written(tmp_path_factory, run_folder):
    """The folder of a whole analysis of two small towers, and what the command printed."""
    root = tmp_path_factory.mktemp("analysis")
    towers = [str(siglip_folder(root / "siglip")), str(internvit_folder(root / "internvit"))]
    codec = f"{run_folder / 'pretrained/codec'}:0,9"
    words = ["analyze", str(folder_of(root / "photos", 5)), "--tower", *towers, "--codec", codec, "avif:40"]
    words += ["--run", str(run_folder), "--count", "4", "--examples", "2", "--workers", "1", "--json"]
    with pytest.MonkeyPatch.context() as patch:
        said = []
        # Not capsys, which a fixture of a module cannot have; progress goes to stderr.
        patch.setattr("builtins.print", lambda text, file=None, **_: said.append(text) if file is None else None)
        assert cli.main([*words, "-o", str(root / "out")]) == 0
    return root / "out", json.loads("\n".join(said))


def table(file: Path) -> list[dict[str, str]]:
    with file.open() as lines:
        return list(csv.DictReader(lines))


def test_every_figure_has_its_numbers_beside_it(written):
    folder, _ = written
    for name in (*FIGURES, "fig21-similarity", f"levels-{CODEC}-{MLLM}"):
        assert (folder / f"{name}.svg").read_bytes().startswith(b"<?xml"), name
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG"), name
        assert table(folder / f"{name}.csv"), name
    assert (folder / "page.html").stat().st_size > 10_000


def test_the_summary_says_what_the_tables_say(written):
    folder, summary = written
    assert summary == json.loads((folder / "summary.json").read_text())
    assert summary["images"]["count"] == 4
    internvit, siglip = (summary["towers"][name] for name in sorted(summary["towers"]))
    assert (siglip["cls"], siglip["grid"], internvit["cls"], internvit["grid"]) == (False, [6, 6], True, [7, 7])
    for name, tower in summary["towers"].items():
        rows = [row for row in table(folder / "curves.csv") if row["tower"] == name]
        raw = [float(row["mean"]) for row in rows if (row["version"], row["curve"]) == ("raw", "d_avg")]
        assert raw == pytest.approx(tower["raw"]["d_avg"], rel=1e-6)
        assert len(raw) == tower["layers"] == 9
        assert tower["stages"]["stages"][0][0] == 0
        assert tower["stages"]["stages"][2][1] == 8
        of_codec = [float(row["mean"]) for row in rows if (row["version"], row["curve"]) == ("avif:40", "similarity")]
        assert min(of_codec) == pytest.approx(tower["similarity"]["avif"]["40"]["lowest"], rel=1e-6)
        assert set(tower["similarity"]) == {"codec", "avif"}
    assert json.loads((folder / "stages.json").read_text()) == {
        name: tower["stages"] for name, tower in summary["towers"].items()
    }


def test_what_was_found_is_said_in_lines(written):
    _, summary = written
    lines = command.said(summary)
    assert [line for line in lines if "similarity against loss" in line] and any("low: rho" in line for line in lines)
    level = summary["levels"][0]["correlations"]["low"]
    without = {**summary["levels"][0], "correlations": {"low": {**level, "best": None}}}
    assert command.said({**summary, "levels": [without]})[-1] == (
        "  low: no correlation, as it loses the same in all settings"
    )


def test_the_second_time_replaces_an_analysis_and_nothing_else(written, tmp_path, capsys):
    folder, _ = written
    copy = tmp_path / "out"
    shutil.copytree(folder, copy)
    command._check_out(copy)
    for extra in ("notes.txt", "photo.png"):
        (copy / extra).write_text("mine")
        with pytest.raises(CotamError, match="or not all of it"):
            command._check_out(copy)
        (copy / extra).unlink()


def test_scores_are_joined(written, run_folder):
    folder, summary = written
    (joined,) = summary["levels"]
    assert joined["settings"] == 3 * len(QUALITIES)  # CoTAM is left out
    assert set(joined["correlations"]) == {"low", "high", "cross"}
    for found in joined["correlations"].values():
        assert len(found["rho"]["value"]) == 10
        assert all(-1 <= value <= 1 for value in found["rho"]["value"])
    points = table(folder / f"levels-{CODEC}-{MLLM}-points.csv")
    assert [(row["method"], row["quality"]) for row in points if row["method"] == CODEC] == [
        (CODEC, str(quality)) for quality in QUALITIES
    ]
    rates = json.loads((run_folder / f"results/rate/{CODEC}/rates.json").read_text())
    bits = rates["styles"]["bench"]["methods"][CODEC]["0"]["bits"]
    bpp = next(float(row["bpp"]) for row in points if (row["method"], row["quality"]) == (CODEC, "0"))
    assert bpp == pytest.approx(sum(bits) / sum(rates["styles"]["bench"]["pixels"]), rel=1e-6)


def test_the_same_again_is_the_same_to_the_byte(written, tmp_path):
    folder, _ = written
    root = folder.parent
    for name in ("one", "two"):
        words = ["analyze", str(root / "photos"), "--tower", str(root / "siglip"), "--codec", "jpeg:30", "--count", "3"]
        words += ["--examples", "1", "--workers", "1"]
        assert cli.main([*words, "-o", str(tmp_path / name)]) == 0
    for file in ("fig20-distance.svg", "curves.csv", "stages.json", "page.html"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


def test_a_short_tower_without_any_codec(tmp_path, capsys):
    tower = tiny_clip_folder(tmp_path / "clip")
    words = ["analyze", "--tower", str(tower), "--codec", "--count", "2", "--examples", "1", "--workers", "1"]
    assert cli.main([*words, "-o", str(tmp_path / "out")]) == 0
    assert "too few layers to find stages in" in capsys.readouterr().out
    for name in FIGURES:
        assert (tmp_path / "out" / f"{name}.png").is_file()
    assert json.loads((tmp_path / "out/stages.json").read_text()) == {f"{tmp_path.name}/clip": None}


def test_clip_l_336_by_its_name(tmp_path, monkeypatch):
    name = "some-one/clip-vit-large-patch14-336"
    clip_l_336_folder(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    words = ["analyze", "photographs", "--tower", name, "--codec", "--count", "1", "--examples", "1"]
    assert cli.main([*words, "--workers", "1", "-o", "out"]) == 0
    found = json.loads(Path("out/summary.json").read_text())["towers"][name]
    assert (found["layers"], found["grid"], found["cls"]) == (24, [24, 24], True)
    assert found["stages"]["layers"] == 24
    d_avg = np.array(found["raw"]["d_avg"])
    assert ((d_avg > 0) & (d_avg < 33)).all()
    assert Path("out/page.html").stat().st_size < 8_000_000


def test_mistakes_are_answered_with_one_sentence(tmp_path, run_folder, capsys):
    tower = tiny_clip_folder(tmp_path / "clip")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("kept")
    folder_of(tmp_path / "photos", 2)
    (tmp_path / "photos/broken.png").write_bytes(b"\x89PNG")
    mistakes = {
        "is no folder; name a folder of images": [str(tmp_path / "nowhere")],
        "holds no image": [str(tmp_path / "empty")],
        "broken.png is": [str(tmp_path / "photos")],
        "There is no model at": ["--tower", str(tmp_path / "nowhere")],
        "is not a Hugging Face model": ["--tower", str(tmp_path / "empty")],
        "Two towers would both be called": ["--tower", str(tower), f"{tower}/"],
        "does not hold a codec": ["--codec", str(tower)],
        "jpeg has no quality 200": ["--codec", "jpeg:200"],
        "holds no finished run": ["--run", str(tmp_path / "empty")],
        "was not written by cotam analyze": ["-o", str(tmp_path / "photos")],
        f"{tmp_path / 'file'} was not written": ["-o", str(tmp_path / "file")],
    }
    before = sha256_tree(tmp_path)
    common = ["--count", "3", "--workers", "1", "--tower", str(tower), "--codec", "jpeg:5", "-o", str(tmp_path / "out")]
    for words, extra in mistakes.items():
        images = extra if not extra[0].startswith("-") else []
        options = [] if images else extra
        assert cli.main(["analyze", *images, *common, *options]) == 1, words
        captured = capsys.readouterr()
        (sentence,) = (line for line in captured.err.splitlines() if line.startswith("cotam: "))
        assert words in sentence
        assert captured.out == ""
    assert sha256_tree(tmp_path) == before


def test_a_run_that_lacks_something(run_folder, tmp_path):
    scores = tmp_path / "scores.json"
    told = json.loads(next(run_folder.glob("results/scores/*/scores.json")).read_text())
    del told["styles"]["bench"]["scores"]["clean"]
    scores.write_text(json.dumps(told))
    with pytest.raises(CotamError, match="no scores of clean images"):
        join(scores, run_folder, "unused", 10, 0, 1)
    told = json.loads(next(run_folder.glob("results/scores/*/scores.json")).read_text()) | {"codec": "gone"}
    scores.write_text(json.dumps(told))
    with pytest.raises(CotamError, match=r"of the codec gone, which params\.yaml does not have"):
        join(scores, run_folder, "unused", 10, 0, 1)
    scores.write_text("{}")
    with pytest.raises(CotamError, match="holds no scores of a run"):
        join(scores, run_folder, "unused", 10, 0, 1)


@pytest.mark.parametrize("extra", [["--count", "0"], ["--batch", "none"], ["--qualities"]])
def test_a_wrong_command_line_ends_with_two(extra, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["analyze", *extra])
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
