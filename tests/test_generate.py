"""dvc.yaml says what the steps say, and DVC does with it what we promise."""

import os
import shutil
import subprocess
import sys

import pytest
import yaml

from components.paths import ROOT
from components.steps import STEPS
from pipelines import generate


def test_the_generated_files_are_up_to_date():
    for path, text in generate.contents().items():
        assert path.read_text() == text, f"{path.name} is out of date; run `python -m pipelines.generate`"


def test_check_notices_another_import(checkout):
    before = generate.contents(checkout)
    module = checkout / "components/training/step_joint.py"
    module.write_text("import components.locks\n" + module.read_text())
    after = generate.contents(checkout)
    stages = [yaml.safe_load(text[checkout / "dvc.yaml"])["stages"] for text in (before, after)]
    assert "components/locks.py" in stages[1]["joint"]["deps"]
    assert [name for name in stages[0] if stages[0][name] != stages[1][name]] == ["joint"]


def test_a_new_library_version_changes_the_fingerprint_and_another_does_not(tmp_path):
    from components.environment import numeric_fingerprint

    def fingerprint(old, new):
        text = (ROOT / "requirements.lock").read_text()
        assert old in text
        (tmp_path / "requirements.lock").write_text(text.replace(old, new))
        return numeric_fingerprint(tmp_path / "requirements.lock")

    same = fingerprint("torch==", "torch==")
    assert fingerprint("prefect==", "prefect==9") == same
    assert fingerprint("torch==", "torch==9") != same


def test_variants_name_their_own_settings_only():
    rate = generate.stage(next(step for step in STEPS if step.name == "rate"))
    assert "codec.${item.codec}" in rate["params"]
    assert "codec" not in rate["params"]
    assert rate["cmd"] == "cotam step rate --codec ${item.codec}"


@pytest.fixture
def dvc(checkout):
    """Run DVC in the small checkout, with `cotam` on the path; returns the names of the stages that ran."""
    (checkout / "bin").mkdir()
    (checkout / "bin/cotam").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m components.cli "$@"\n')
    (checkout / "bin/cotam").chmod(0o755)
    shutil.copytree(ROOT / ".dvc", checkout / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "*.local"))
    subprocess.run(["git", "init", "--quiet"], cwd=checkout, check=True)
    environment = os.environ | {
        "PATH": f"{checkout / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(checkout),
    }

    def repro():
        done = subprocess.run(
            [sys.executable, "-m", "dvc", "repro"], cwd=checkout, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return [line.split("'")[1] for line in done.stdout.splitlines() if line.startswith("Running stage")]

    return repro


def test_dvc_runs_what_changed_and_nothing_else(dvc, checkout):
    params = checkout / "params.yaml"

    def change(old, new):
        assert old in params.read_text()
        params.write_text(params.read_text().replace(old, new))

    everything = dvc()
    assert everything[-1] == "report"
    assert {name.split("@")[0] for name in everything} == {step.name for step in STEPS} - {"evaluate-task"}
    assert len(everything) <= 12

    assert dvc() == []
    ignored = subprocess.run(["git", "status", "--short", "data", "results"], cwd=checkout, capture_output=True)
    assert ignored.stdout == b""  # DVC has not put files of its own there

    change("lambda_high: 1.0", "lambda_high: 0.5")
    assert dvc() == ["joint@elic-micro-llava", "evaluate@elic-micro-llava", "report"]

    change("bootstrap: 1000", "bootstrap: 10")
    assert dvc() == ["report"]

    change("tasks: []", "tasks: [mme]")
    assert dvc() == ["evaluate-task@elic-micro-llava-mme", "report"]
    change("tasks: [mme]", "tasks: [mme, textvqa_val]")
    assert dvc() == ["evaluate-task@elic-micro-llava-textvqa_val", "report"]
    change("tasks: [mme, textvqa_val]", "tasks: []")
    assert dvc() == ["report"]

    (checkout / "pretrained/mllm/micro-llava/config.json").write_text("{}")
    ran = dvc()
    assert ran[0] == "weights"
    assert not {"rate@elic", "render", "shard", "benchmarks"} & set(ran)
    assert {"joint@elic-micro-llava", "evaluate@elic-micro-llava"} < set(ran)

    (checkout / "data/my-photos").mkdir()
    photos = checkout / "data/my-photos/manifest.json"
    photos.write_text("{}")
    change("source: data/scenes", "source: data/my-photos")
    assert dvc()[0] == "shard"
    photos.write_text('{"more": 1}')
    assert dvc()[0] == "shard"

    change("codecs: [elic]", "codecs: [elic, wide]")
    change("  elic: {", "  wide: {weights: pretrained/codec/elic-micro}\n  elic: {")
    others = {f"{name}@wide-micro-llava" for name in ("warmup", "joint", "evaluate")}
    assert set(dvc()) == {"weights", "rate@wide", "report"} | others
