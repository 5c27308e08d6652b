"""Runs with other settings: in a copy of the checkout, edits included, and the checkout itself untouched."""

import shutil
import subprocess

import httpx
import pytest
import yaml

from components.errors import CotamError
from components.evaluation.task_results import DATA
from components.files import read_json
from components.tracking.client import tags
from flows import services
from flows.train_and_eval import train_and_eval
from flows.workspace import changed_settings, copy_back, open_workspace, run_name, source_of
from tests import pipeline_project
from tests.flows.conftest import run_deployment
from tests.flows.test_demo import experiments, hashes
from tests.pipeline_project import clone, dvc, git, ledger


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return pipeline_project.make(tmp_path_factory.mktemp("workspaces"))


@pytest.fixture
def checkout(made, tmp_path):
    """A checkout to edit, on which nothing has run."""
    return clone(made, tmp_path / "checkout")


def test_overrides_run_in_a_workspace_and_come_back(running):
    services.up(running)
    ledger(running)
    before = hashes(running), (running / "params.yaml").read_text()
    (running / "note.txt").write_text("not committed\n")
    try:
        overrides = {"adapter.lambda_high": 0.125}
        said = run_deployment(running, "train-and-eval/local", project=str(running), overrides=overrides)
    finally:
        (running / "note.txt").unlink()
    assert "Completed" in said
    assert ledger(running) == ["joint", "report"]  # what was the same came from the cache

    assert (hashes(running), (running / "params.yaml").read_text()) == before
    assert git(running, "status", "--porcelain").split() in ([], ["??", "dvc.lock"])
    assert list((running / ".cotam/workspaces").iterdir()) == []
    results = running / "results/runs/lambda_high=0.125"
    assert yaml.safe_load((results / "params.yaml").read_text())["adapter"]["lambda_high"] == 0.125
    assert read_json(results / "joint/elic-micro-llava/adapter/config.json")["lambda_high"] == 0.125
    assert (results / "report/index.html").exists()

    client, [run, *_] = experiments(running)
    assert run["info"]["run_name"] == "lambda_high=0.125" and run["info"]["status"] == "FINISHED"
    assert tags(run)["dirty"] == "true" and tags(run)["overrides"] == str(overrides)
    stages = {name: tags(child)["ran"] for name, child in client.children(run).items()}
    expected = {"count": "false", "joint@elic-micro-llava": "true", "render": "false", "report": "true"}
    assert stages == expected
    folder = f"{client.uri}/api/2.0/mlflow-artifacts/artifacts"
    path = f"{run['info']['artifact_uri'].removeprefix('mlflow-artifacts:/')}"
    listed = httpx.get(folder, params={"path": path}).json()["files"]
    [patch] = [file["path"] for file in listed if file["path"].endswith(".patch")]
    assert "+not committed" in httpx.get(f"{folder}/{path}/{patch}").text
    assert {"summary.json", "index.html", "run.json"} <= {file["path"] for file in listed}


def test_a_workspace_is_the_checkout_with_its_edits(checkout):
    (checkout / "step.py").write_text("edited\n")
    (checkout / "new.bin").write_bytes(bytes(range(256)))
    (checkout / "results").mkdir()
    (checkout / "results/ignored.txt").write_text("")
    settings = changed_settings(checkout, None, {"seed": 8})
    workspace = open_workspace(checkout, "seed=8", settings)
    assert (workspace / "step.py").read_text() == "edited\n"
    assert (workspace / "new.bin").read_bytes() == bytes(range(256))
    assert not (workspace / "results").exists()
    assert yaml.safe_load((workspace / "params.yaml").read_text()) == settings
    assert "seed: 7" in (checkout / "params.yaml").read_text()
    source = source_of(checkout)
    assert source.dirty and source.revision == git(checkout, "rev-parse", "HEAD").strip()


def test_a_workspace_is_found_again_until_its_source_changes(checkout):
    settings = changed_settings(checkout, None, {"seed": 8})
    workspace = open_workspace(checkout, "seed=8", settings)
    (workspace / "half-made").touch()
    assert open_workspace(checkout, "seed=8", settings) == workspace
    assert (workspace / "half-made").exists()
    (checkout / "step.py").write_text("edited\n")
    open_workspace(checkout, "seed=8", settings)
    assert not (workspace / "half-made").exists()
    assert (workspace / "step.py").read_text() == "edited\n"


def test_a_workspace_shares_the_cache(checkout):
    dvc(checkout, "repro", "render")
    ledger(checkout.parents[1] / "none")
    workspace = open_workspace(checkout, "w", changed_settings(checkout, None, {"adapter.lambda_high": "0.5"}))
    assert "is cached" in dvc(workspace, "repro", "render")


def test_a_workspace_reads_the_benchmarks_where_they_lie(checkout):
    settings = changed_settings(checkout, None, {"seed": 8})
    assert not (open_workspace(checkout, "w", settings) / DATA).exists()
    (checkout / DATA / "lmms-lab-encoder/MME").mkdir(parents=True)  # and the same command once more
    for _ in range(2):
        workspace = open_workspace(checkout, "w", settings)
        assert (workspace / DATA / "lmms-lab-encoder/MME").is_dir()
    shutil.rmtree(workspace)
    assert (checkout / DATA / "lmms-lab-encoder/MME").is_dir()


def test_results_replace_those_of_an_earlier_run_of_that_name(checkout):
    for content in ("first", "second"):
        workspace = open_workspace(checkout, "seed=8", changed_settings(checkout, None, {"seed": 8}))
        (workspace / "results").mkdir()
        (workspace / "results" / content).touch()
        folder = copy_back(workspace, checkout, "seed=8")
        assert not workspace.exists()
    assert sorted(path.name for path in folder.iterdir()) == ["params.yaml", "second"]


def test_a_profile_is_merged_into_the_settings(checkout):
    (checkout / "profiles").mkdir()
    (checkout / "profiles/big.yaml").write_text("scenes: {images: 9}\nthreads: 8\n")
    settings = changed_settings(checkout, "big", {"adapter.lambda_high": "2"})
    assert settings["scenes"] == {"images": 9, "size": 128}
    assert settings["threads"] == 8 and settings["adapter"]["lambda_high"] == 2
    assert "full" in settings["variants"]


def test_variants_of_a_profile_stand_in_place_of_all_others(checkout):
    (checkout / "profiles").mkdir()
    (checkout / "profiles/few.yaml").write_text("variants: {mine: {}}\n")
    assert changed_settings(checkout, "few", {})["variants"] == {"mine": {}}


@pytest.mark.parametrize(
    ("profile", "overrides", "sentence"),
    [
        (None, {"adapter.lambda_hihg": "1"}, "adapter.lambda_hihg"),
        (None, {"seed": "[1"}, "is not valid YAML"),
        ("huge", {}, "There is no profile huge"),
    ],
)
def test_wrong_changes_are_one_sentence(checkout, profile, overrides, sentence):
    with pytest.raises(CotamError, match=sentence) as error:
        changed_settings(checkout, profile, overrides)
    assert "\n" not in str(error.value)


def test_a_folder_without_git_cannot_be_copied(tmp_path):
    with pytest.raises(CotamError, match="is not a git checkout"):
        open_workspace(tmp_path, "w", {})


def test_a_failed_copy_leaves_nothing(checkout):
    (checkout / ".dvc/config").unlink()
    git(checkout, "commit", "-q", "-a", "-m", "no DVC")
    subprocess.run(["rm", "-rf", checkout / ".dvc"], check=True)
    with pytest.raises(Exception, match=r"dvc|DVC"):
        open_workspace(checkout, "w", {"seed": 8})
    assert list((checkout / ".cotam/workspaces").iterdir()) == []


def test_names_say_what_was_changed():
    assert run_name(None, {}) == ""
    assert run_name("paper", {}) == "paper"
    assert run_name(None, {"adapter.lambda_high": 0.5}) == "lambda_high=0.5"
    assert run_name("paper", {"seed": "8", "adapter.width": "64"}) == "paper,width=64,seed=8"


def test_names_are_names_of_folders_and_differ():
    names = [run_name(None, {"data.source": source}) for source in ("a/b", "a-b", "a b", "../x", "x" * 90, "x" * 91)]
    assert len(set(names)) == len(names)
    assert all("/" not in name and len(name) < 80 for name in names)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"name": "../elsewhere"}, "cannot be called"),
        ({"name": ".."}, "cannot be called"),
        ({"remote": True, "overrides": {"seed": 8}}, "do not see overrides"),
    ],
)
def test_what_cannot_be_run_is_one_sentence(checkout, options, sentence):
    with pytest.raises(CotamError, match=sentence):
        train_and_eval.fn(project=str(checkout), **options)
