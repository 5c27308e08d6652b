"""The flow `ablations` over two checkouts that share the DVC remote alone: one drives and judges, the other works."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from components import config
from components.files import read_json
from components.paths import ROOT
from flows import processes, services
from flows.ablations import VERDICTS
from pipelines.generate import ABLATIONS, contents
from tests.conftest import write_checkout_of_stubs
from tests.flows.conftest import last_words, run_deployment
from tests.flows.test_ablations import STUB_VARIANTS, STUB_VERDICTS
from tests.pipeline_project import clone, dvc, git

SEED = config.load().seed


def _copy_new(source: str, target: str) -> None:
    """Copy what is not there yet: stand-ins stay."""
    if not os.path.exists(target):
        shutil.copy2(source, target)


@pytest.fixture(scope="module")
def checkouts(tmp_path_factory):
    """Two clones of a checkout of stand-ins for the steps, which has the flows as well."""
    folder = tmp_path_factory.mktemp("ablations-cluster")
    (folder / "origin").mkdir()
    origin = write_checkout_of_stubs(folder / "origin", STUB_VARIANTS)
    leave = shutil.ignore_patterns("__pycache__", "cache", "tmp", "*.local", "dvc.lock")
    for name in ("components", "flows", "pipelines", ".dvc"):
        shutil.copytree(ROOT / name, origin / name, ignore=leave, dirs_exist_ok=True, copy_function=_copy_new)
    (origin / "components/reporting/step_verdicts.py").write_text(STUB_VERDICTS)
    for path, text in contents(origin).items():
        path.write_text(text)
    git(origin, "init", "-q")
    dvc(origin, "remote", "add", "-d", "shared", str(folder / "remote"))
    git(origin, "add", "-A")
    git(origin, "commit", "-q", "-m", "start")
    return clone(origin, folder / "driver"), clone(origin, folder / "machine")


@pytest.fixture(scope="module")
def working(running, checkouts):
    """Workers of the cluster's pools, each in its own checkout, and their logs by checkout."""
    services.up(running)
    started, logs = [], {}
    for checkout, pools in zip(checkouts, (["cluster"], ["cluster-cpu", "cluster-gpu"]), strict=True):
        search = [str(checkout), *filter(None, [os.environ.get("PYTHONPATH")])]
        own = {"PYTHONPATH": os.pathsep.join(search), "COTAM_CHECKOUT": str(checkout), "DVC_NO_ANALYTICS": "1"}
        own["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
        command = [sys.executable, "-m", "flows.workers", "--pools", *pools, "--name", checkout.name]
        logs[checkout] = checkout.parent / f"{checkout.name}.log"
        with logs[checkout].open("w") as log:
            environment = os.environ | services.environment(running) | own
            started.append(
                subprocess.Popen(
                    command, cwd=checkout, env=environment, stdout=log, stderr=log,
                    preexec_fn=processes.child_dies_with_parent,
                )
            )  # fmt: skip
    yield logs
    for process in started:
        process.kill()
        process.wait()


def test_what_other_machines_scored_is_judged_by_the_driver(running, checkouts, working):
    driver, machine = checkouts
    try:
        run_deployment(running, "ablations/cluster", variants=["no-adapter", "high-*"])
    except AssertionError as error:
        pytest.fail("\n".join([str(error), *(f"== {log}\n{log.read_text()[-5000:]}" for log in working.values())]))
    found = read_json(driver / "results/ablations/verdicts.json")
    assert found["there"] == [f"{name}-{SEED}" for name in ("full", "high-only", "no-adapter", "no-guidance")]
    assert not (machine / "results/ablations").exists()
    trained = f"results/variant-training/high-only-{SEED}/model/file.json"
    assert (driver / trained).read_bytes() == (machine / trained).read_bytes()
    ran = {checkout: set(re.findall(r"Running stage '([^']+)'", log.read_text())) for checkout, log in working.items()}
    assert {f"{ABLATIONS}:train-cotam@high-only-{SEED}", "rate@elic"} < ran[machine]
    assert ran[driver] == {VERDICTS}


@pytest.mark.soak
def test_a_stage_that_fails_elsewhere_leaves_no_old_result_here(running, checkouts, working):
    driver, machine = checkouts
    module = machine / "components/training/methods/cotam.py"
    good = module.read_text()
    module.write_text(good.replace("(inputs):\n", "(inputs):\n    raise RuntimeError('on purpose')\n", 1))
    try:
        with pytest.raises(AssertionError, match="Failed"):  # prefect's exit code is not 0
            run_deployment(running, "ablations/cluster", variants=["no-adapter", "high-*"], retries=0)
    finally:
        module.write_text(good)
    said = last_words(running, "ablations")
    assert f"3 of 4 runs ended well; not high-only-{SEED}." in said and "on purpose" in said
    assert read_json(driver / "results/ablations/verdicts.json")["there"] == [
        f"{name}-{SEED}" for name in ("full", "no-adapter", "no-guidance")
    ]


@pytest.mark.parametrize(
    ("old", "new", "variants", "said"),
    [
        (
            "variants:\n",
            "variants:\n  k-200: {guidance: {k: 2.0}, adapter_of: full}\n",
            ["k-200"],
            "run `python -m pipelines.generate`, commit",
        ),
        ("k: 0.75", "k: 0.6", ["no-adapter"], "Other machines have what is committed, which params.yaml is not"),
    ],
)
def test_what_is_not_committed_is_refused(running, checkouts, working, old, new, variants, said):
    driver, _ = checkouts
    params = driver / "params.yaml"
    before = params.read_text()
    assert old in before
    params.write_text(before.replace(old, new, 1))
    try:
        with pytest.raises(AssertionError, match="Failed"):
            run_deployment(running, "ablations/cluster", variants=variants)
    finally:
        params.write_text(before)
    assert said in last_words(running, "ablations")
