"""`cotam evaluate`, as it is typed."""

import json
import zipfile

import pytest
import torch

from components import cli, config
from components.adapter import AdapterConfig, LatentAdapter
from components.commands import evaluate as command
from components.evaluation.benchmarks import BENCHMARKS
from components.evaluation.samples import read
from components.evaluation.streams import Setting
from components.files import sha256_tree
from components.steps import run_step
from tests.models import WIDTH, tiny_llava_folder
from tests.small_checkout import CODEC, MLLM, write_checkout, write_small_benchmarks

QUALITIES = ["0", "9"]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """Settings and models of a checkout, its benchmarks, and what the pipeline's steps found on them."""
    root = tmp_path_factory.mktemp("checkout")
    tower = root / "pretrained/clip/micro"
    settings = {"guidance.tower": str(tower), "evaluation.bootstrap": "20", "evaluation.qualities": "[0, 9]"}
    settings |= {"evaluation.jpeg_qualities": "[5]", "evaluation.webp_qualities": "[5]"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "ROOT", root)
        paths = write_checkout(root, settings)
        write_small_benchmarks(paths, 3)
        torch.manual_seed(3)
        adapter = LatentAdapter(AdapterConfig(latent_channels=12, feature_dim=WIDTH, grid=(8, 8), width=16))
        torch.nn.init.normal_(adapter.out_projection.weight, std=2)
        adapter.save(paths.joint(CODEC, MLLM) / "adapter")
        run_step("rate", paths=paths)
        run_step("evaluate", paths=paths)
        yield paths


@pytest.fixture
def arguments(checkout, tmp_path_factory):
    models = checkout.root / "pretrained"
    folders = {"--codec": models / "codec/elic-micro", "--mllm": models / "mllm/micro-llava"}
    folders["--benchmarks"] = checkout.benchmarks
    folders["--cache"] = tmp_path_factory.mktemp("cache")
    return ["evaluate", *(str(word) for pair in folders.items() for word in pair)]


def test_it_finds_what_the_pipeline_finds(checkout, arguments, tmp_path, capsys):
    adapter = str(checkout.joint(CODEC, MLLM) / "adapter")
    out = tmp_path / "kept"
    assert cli.main([*arguments, "--adapter", adapter, "-o", str(out), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary == json.loads((out / "summary.json").read_text())
    assert summary["inputs"]["images"] == 3
    assert summary["inputs"]["adapter"] == adapter

    methods = summary["codecs"][CODEC]
    assert set(methods) == {"clean", CODEC, "cotam"}
    metrics = json.loads((checkout.scores(CODEC, MLLM) / "metrics.json").read_text())
    assert [point["bpp"] for point in methods["clean"][MLLM]["curve"]] == [None]
    for method in (CODEC, "cotam"):
        curve = methods[method][MLLM]["curve"]
        assert [str(point["quality"]) for point in curve] == QUALITIES
        for point in curve:
            name = f"{method}.{point['quality']}"
            assert point["bpp"] == pytest.approx(metrics[f"bpp.{name}"])
            for benchmark in (*BENCHMARKS, "mean"):
                assert point["scores"][benchmark] == pytest.approx(metrics[f"score.{name}.{benchmark}"])
    for benchmark, found in methods["cotam"][MLLM]["bd_rate"].items():
        assert found["value"] == pytest.approx(metrics.get(f"bd_rate.cotam.{benchmark}"))

    with zipfile.ZipFile(out / "streams.zip") as mine, zipfile.ZipFile(checkout.rate(CODEC) / "streams.zip") as theirs:
        assert set(mine.namelist()) == {
            f"{method}/{quality}/bench/{number:06d}.cotam"
            for method in (CODEC, "cotam")
            for quality in QUALITIES
            for number in range(3)
        }
        assert all(mine.read(name) == theirs.read(name) for name in mine.namelist())
    setting = Setting("cotam", "9")
    assert list(read(out / "samples", setting)) == list(read(checkout.scores(CODEC, MLLM) / "samples", setting))
    written = {"metrics.json", "samples", "scores.json", "streams.zip", "summary.json"}
    assert {path.name for path in out.iterdir()} == written
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_it_prints_a_table_of_the_first_images_and_writes_nothing(checkout, arguments, capsys, monkeypatch):
    before = sha256_tree(checkout.root)
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main([*arguments, "--images", "2", "--qualities", "9", "0", "9", "--no-cache"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == "Scores of micro-llava and bits per pixel, 2 images"
    assert max(map(len, lines)) <= 80
    assert all(name in lines[1] for name in ("bpp", "MME", "SEED-Bench", "Mean"))
    rows = [line.split() for line in lines if line.strip() and line.split()[-1].replace(".", "").isdigit()]
    assert [row[:1] for row in rows] == [["clean"], ["ELIC"], ["9"]]
    assert [len(row) for row in rows] == [8, 10, 9]
    assert "BD-rate" not in "".join(lines)
    assert sha256_tree(checkout.root) == before


def test_another_mllm_on_the_same_images_costs_no_encoding(checkout, arguments, tmp_path, capsys):
    other = tiny_llava_folder(tmp_path / "other-llava", seed=7)
    counts = []
    for extra in ([], ["--mllm", str(other)]):
        assert cli.main([*arguments, "--images", "2", *extra, "--json"]) == 0
        counts.append(json.loads(capsys.readouterr().out)["coding"])
    settings = 2 * len(QUALITIES)
    assert counts == [
        {"encoded": settings, "from_cache": 0},
        {"encoded": 0, "from_cache": settings},
    ]


def test_the_last_runs_adapter_is_taken_with_the_models_that_it_belongs_to(checkout, arguments, monkeypatch):
    monkeypatch.chdir(checkout.root)
    shipped = checkout.root / "pretrained"
    adapter = checkout.joint(CODEC, MLLM) / "adapter"
    for name, folder in (("CODEC", "codec/elic-micro"), ("MLLM", "mllm/micro-llava")):
        monkeypatch.setattr(command, name, shipped / folder)
    monkeypatch.setattr(command, "ADAPTER", adapter)

    def taken(*extra):
        args = cli.build_parser("evaluate").parse_args([*arguments, *extra])
        return command._contest(args, config.load(checkout.root / "params.yaml")).adapter

    assert taken() == adapter
    assert taken("--mllm", "pretrained/mllm/micro-llava") == adapter
    assert taken("--mllm", str(shipped / "clip/micro")) is None
    assert taken("--adapter", str(shipped)) == shipped
    monkeypatch.setattr(command, "ADAPTER", adapter / "nowhere")
    assert taken() is None


def test_the_table_shows_what_cotam_saves(capsys):
    def entry(bpp, mean, **more):
        scores = dict.fromkeys(BENCHMARKS, 50.0) | {"mean": mean}
        return {MLLM: {"curve": [{"quality": 0 if bpp else None, "bpp": bpp, "scores": scores}], **more}}

    rates = {name: {"value": None, "low": None, "high": None} for name in (*BENCHMARKS, "mean")}
    rates["mean"] = {"value": -31.0, "low": -37.0, "high": -24.0}
    methods = {"clean": entry(None, 90.0), "elic": entry(0.1, 60.0), "cotam": entry(0.11, 70.0, bd_rate=rates)}
    coding = {"encoded": 3, "from_cache": 4}
    summary = {"benchmarks": list(BENCHMARKS), "inputs": {"images": 1}, "codecs": {"elic": methods}, "coding": coding}
    command._print(summary)
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[3:] if line.strip()][:1] == ["clean"]
    assert out.index("CoTAM") < out.index("ELIC")
    assert "3 images encoded, 4 found in the cache." in out
    assert "BD-rate of CoTAM against ELIC, mean score, 95 % interval: -31.0 % (-37.0 to -24.0); below" in out
    (row,) = (line.split() for line in out.splitlines() if line.split()[:2] == ["BD-rate", "%"])
    assert row[2:] == [*"\N{EN DASH}" * 6, "\N{MINUS SIGN}31.0"]


def test_mistakes_are_answered_with_one_sentence(checkout, arguments, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.png").touch()
    (tmp_path / "file").touch()
    clip = str(checkout.root / "pretrained/clip/micro")
    mistakes = {
        "make them with `dvc repro benchmarks`": ["--benchmarks", str(tmp_path)],
        "There is no quality 11; choose 0 (fewest bits) to 9": ["--qualities", "2", "11"],
        "There is no quality -1": ["--qualities", "-1"],
        "There is no model at": ["--codec", str(tmp_path / "nowhere")],
        "does not hold a codec": ["--codec", clip],
        "There is no model": ["--adapter", str(tmp_path / "nowhere")],
        f"{tmp_path / 'photos'} was not written by cotam evaluate": ["-o", str(tmp_path / "photos")],
        f"{tmp_path / 'file'} was not written by": ["-o", str(tmp_path / "file")],
        "an MLLM must be one of": ["--mllm", clip, "--images", "1", "--qualities", "0", "-o", str(tmp_path / "out")],
    }
    before = sha256_tree(tmp_path)
    for words, extra in mistakes.items():
        assert cli.main([*arguments, *extra]) == 1
        captured = capsys.readouterr()
        (sentence,) = (line for line in captured.err.splitlines() if line.startswith("cotam: "))
        assert words in sentence
        assert captured.out == ""
        assert "Traceback" not in captured.err
    assert sha256_tree(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "photos"]


@pytest.mark.parametrize("extra", [["--images", "0"], ["--images", "some"], ["--qualities"]])
def test_a_wrong_command_line_ends_with_two(arguments, extra, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([*arguments, *extra])
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
