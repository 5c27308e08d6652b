"""The flow `ablations` against a real server: chosen by pattern, on past a failure, what is cached never again."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from components import config
from components.errors import CotamError
from components.files import read_json
from components.paths import ROOT
from components.tracking.client import TrackingClient, tags
from components.variants import runs
from flows import services
from flows.ablations import ablations, needed
from flows.dvc_graph import MAIN, read_graph
from pipelines.generate import ABLATIONS
from tests.flows.conftest import last_words, run_deployment
from tests.flows.test_demo import experiments
from tests.pipeline_project import git

SEED = config.load().seed

STUB_VERDICTS = '''
"""A stand-in for the verdicts on what there is."""

import json


def run(inputs):
    folder = inputs.paths.root / "results/variants"
    there = sorted(path.name for path in folder.iterdir())
    curve = [{"quality": 1, "bpp": 0.25, "scores": {"mean": {"value": 50.0}}}]
    rate = {"mean": {"value": -12.5, "low": -20.0, "high": -5.0}}
    entry = {"bd_rate": rate, "bd_score": None, "curve": curve}
    compared = {"what": "a and b", "unit": "points", "expected": "above 0", "verdict": "holds", "missing": ""}
    compared |= {"trainings": {"full": [7, 8]}, "images_only": False}
    compared["estimate"] = {"value": 1.0, "low": 0.5, "high": 1.5}
    claim = {"id": "C11", "paper": "Parts matter.", "verdict": "holds", "comparisons": [compared], "images_only": False}
    found = {"there": there, "claims": [claim], "variants": dict.fromkeys(inputs.params.variants, entry)}
    (inputs.out / "verdicts.json").write_text(json.dumps(found))
    (inputs.out / "index.html").write_text("<p>verdicts</p>")
'''

STUB_VARIANTS = """\
  full: {}
  no-adapter: {receive: picture}
  no-guidance: {guidance: {levels: 1}, adapter_of: full}
  high-only: {adapter: {lambda_low: 0.0}}
"""


@pytest.fixture(scope="module")
def variants_project(tmp_path_factory):
    """A checkout of stand-ins for the steps, in git and DVC, whose main pipeline has run."""
    from tests.conftest import write_checkout_of_stubs

    project = write_checkout_of_stubs(tmp_path_factory.mktemp("ablations"), STUB_VARIANTS)
    (project / "components/reporting/step_verdicts.py").write_text(STUB_VERDICTS)
    shutil.copytree(ROOT / ".dvc", project / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "*.local"))
    git(project, "init", "-q")
    git(project, "add", "-A")
    git(project, "commit", "-q", "-m", "start")
    environment = {**os.environ, "PYTHONPATH": str(project)}
    environment["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"], cwd=project, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return project


def test_only_what_the_chosen_variants_need_is_run(variants_project):
    from components.variants import choose

    graph = read_graph(variants_project, (MAIN, ABLATIONS))
    settings = config.load(variants_project / "params.yaml")

    def names(*patterns):
        return {stage.name for stage in needed(graph, choose(settings, list(patterns), [SEED]))}

    assert f"{ABLATIONS}:evaluate-plain@no-adapter-{SEED}" in names("no-adapter")
    # It is held against the main run of its codec and MLLM, whose report is not read.
    assert {"evaluate@elic-micro-llava", "joint@elic-micro-llava", "rate@elic"} <= names("no-adapter")
    shared = names("no-guidance")
    assert not any("train-cotam" in name for name in shared)
    [evaluation] = (stage for stage in graph if stage.name == f"{ABLATIONS}:evaluate-variant@no-guidance-{SEED}")
    assert "joint@elic-micro-llava" in evaluation.upstream
    assert f"{ABLATIONS}:train-cotam@high-only-{SEED}" in names("high-*")
    assert "report" not in names("*")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"variants": ["yes-*"]}, r"No variant is called yes-\*"),
        ({"seeds": [3]}, "The seed 3 is not in"),
        ({"profile": "huge"}, "There is no profile huge"),
        ({"profile": "one", "variants": ["full"]}, "No variant is called full"),
        ({"profile": "world", "remote": True}, "Other machines do not see a profile"),
        ({"name": "a/b"}, "A run cannot be called a/b"),
    ],
)
def test_what_cannot_be_chosen_is_one_sentence(variants_project, options, sentence):
    (variants_project / "profiles").mkdir(exist_ok=True)
    (variants_project / "profiles/one.yaml").write_text("variants: {seen: {receive: picture}}\n")
    with pytest.raises(CotamError, match=sentence):
        ablations.fn(project=str(variants_project), **options)
    assert not (variants_project / ".cotam/workspaces").exists()


def test_a_contradiction_is_refused_before_anything_starts(variants_project):
    params = variants_project / "params.yaml"
    before = params.read_text()
    params.write_text(before.replace("high-only: {", "high-only: {receive: picture, "))
    try:
        with pytest.raises(CotamError, match=r"variants\.high-only\.adapter has no meaning"):
            ablations.fn(project=str(variants_project))
    finally:
        params.write_text(before)


def test_old_results_of_a_failed_run_do_not_reach_the_verdicts(tmp_path):
    from prefect.logging import disable_run_logger

    from components.variants import choose
    from flows.judging import judged, remove_old

    chosen = choose(config.load(), ["full", "no-adapter", "high-only"], [SEED])
    for name in ("full", "high-only", "low-only"):
        (tmp_path / f"results/variants/{name}-{SEED}").mkdir(parents=True)
    for name in ("rate/elic", "scores/elic-micro-llava"):
        (tmp_path / "results" / name).mkdir(parents=True)
    with disable_run_logger():
        remove_old(judged(tmp_path, chosen), {f"{ABLATIONS}:evaluate-variant@full-{SEED}", "rate@elic"})
    left = sorted(path.name for path in (tmp_path / "results/variants").iterdir())
    assert left == [f"full-{SEED}", f"low-only-{SEED}"]  # low-only was not asked for
    assert (tmp_path / "results/rate/elic").exists() and not (tmp_path / "results/scores/elic-micro-llava").exists()


def test_a_failed_run_is_told_no_numbers(monkeypatch):
    from flows import ablation_records

    logged = {}

    class Client:
        def __init__(self, uri):
            pass

        def log_batch(self, run, **what):
            logged[run] = what

    monkeypatch.setattr(ablation_records, "TrackingClient", Client)
    records = ablation_records.VariantRecords.__new__(ablation_records.VariantRecords)
    records.uri, records.parent, records.ids = "", "parent", {f"full-{SEED}": "good", f"high-only-{SEED}": "failed"}
    other = config.load().more_seeds[0]
    records.ids[f"full-{other}"] = "other seed"
    records.runs = [run for run in runs(config.load()) if run.name in records.ids]
    entry = {"bd_rate": {"mean": {"value": -1.0, "low": None, "high": None}}, "bd_score": None, "curve": None}
    of_other = {"bd_rate": {"mean": {"value": -2.0, "low": None, "high": None}}, "bd_score": None, "curve": None}
    found = {"claims": [], "variants": {"full": entry | {"by_seed": {str(other): of_other}}, "high-only": entry}}
    records.add_verdicts(found, {f"full-{SEED}", f"full-{other}"})
    assert logged.keys() == {"parent", "good", "other seed"}
    values = {run: logged[run]["metrics"][0]["value"] for run in ("good", "other seed")}
    assert values == {"good": -1.0, "other seed": -2.0}  # each its own


def test_a_failure_is_said_at_the_end_and_made_good_by_the_next_run(running, variants_project):
    services.up(running)
    module = variants_project / "components/training/methods/cotam.py"
    good = module.read_text()
    fails = "    open('attempts', 'a').write('1')\n    raise RuntimeError('on purpose')\n"
    module.write_text(good.replace("(inputs):\n", f"(inputs):\n{fails}", 1))

    options = {"variants": ["no-adapter", "high-*"], "project": str(variants_project)}
    with pytest.raises(AssertionError, match="Failed"):  # prefect's exit code is not 0
        run_deployment(running, "ablations/local", **options)
    said = last_words(running, "ablations")
    assert f"3 of 4 runs ended well; not high-only-{SEED}." in said and "on purpose" in said
    assert (variants_project / "attempts").read_text() == "11"
    verdicts = variants_project / "results/ablations/verdicts.json"
    there = [f"{name}-{SEED}" for name in ("full", "no-adapter", "no-guidance")]
    assert read_json(verdicts)["there"] == there
    client, [parent, *_] = experiments(running)
    assert parent["info"]["status"] == "FAILED" and tags(parent)["claim.C11"] == "holds"
    children = variant_runs(client, parent)
    assert {name: run["info"]["status"] for name, run in children.items()} == {
        **dict.fromkeys(there, "FINISHED"),
        f"high-only-{SEED}": "FAILED",
    }
    stages = client.children(children[f"no-adapter-{SEED}"])
    assert list(stages) == [f"evaluate-plain@no-adapter-{SEED}"]
    begun = stages[f"evaluate-plain@no-adapter-{SEED}"]["info"]["run_id"]

    module.write_text(good)
    run_deployment(running, "ablations/local", **options)
    assert read_json(verdicts)["there"] == sorted([*there, f"high-only-{SEED}"])
    client, [parent, *_] = experiments(running)
    assert parent["info"]["status"] == "FINISHED"
    children = variant_runs(client, parent)
    high = children[f"high-only-{SEED}"]
    assert tags(high)["method"] == "cotam" and json.loads(tags(high)["changes"]) == {"adapter": {"lambda_low": 0.0}}
    metrics = {metric["key"]: metric["value"] for metric in high["data"]["metrics"]}
    assert metrics["bd_rate/mean"] == -12.5 and metrics["bd_rate/mean/low"] == -20.0 and metrics["score/mean"] == 50.0
    assert {"key": "adapter.lambda_low", "value": "0.0"} in high["data"]["params"]
    assert sorted(client.children(high)) == [f"evaluate-variant@high-only-{SEED}", f"train-cotam@high-only-{SEED}"]
    [again] = client.children(children[f"no-adapter-{SEED}"]).values()
    assert tags(again)["ran"] == "false" and tags(again)["cached_from"] == begun
    artifacts = client._call("GET", "mlflow/artifacts/list", params={"run_id": parent["info"]["run_id"]})["files"]
    assert {"verdicts.json", "index.html", "C11.md", "C11-1.svg"} <= {file["path"] for file in artifacts}


def test_a_profile_is_run_in_a_copy_with_its_own_variants(running, variants_project):
    services.up(running)
    profile = variants_project / "profiles/few.yaml"
    profile.parent.mkdir(exist_ok=True)
    profile.write_text("variants: {seen: {receive: picture}}\n")
    before = read_json(variants_project / "results/ablations/verdicts.json")
    run_deployment(running, "ablations/local", profile="few", project=str(variants_project))
    found = variants_project / "results/runs/ablations-few"
    assert read_json(found / "ablations/verdicts.json")["there"] == [f"seen-{SEED}"]
    assert list(config.load(found / "params.yaml").variants) == ["seen"]
    assert read_json(variants_project / "results/ablations/verdicts.json") == before
    client, [parent, *_] = experiments(running)
    assert parent["info"]["run_name"] == "ablations-few" and list(variant_runs(client, parent)) == [f"seen-{SEED}"]
    assert not list((variants_project / ".cotam/workspaces").iterdir())


def variant_runs(client: TrackingClient, parent) -> dict:
    """The variants' runs below a flow's, by name."""
    where = f"tags.`mlflow.parentRunId` = '{parent['info']['run_id']}' and tags.kind = 'variant'"
    found = client.search_runs([parent["info"]["experiment_id"]], where)
    return {run["info"]["run_name"]: run for run in found}
