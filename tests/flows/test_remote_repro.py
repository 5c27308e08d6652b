"""Another checkout that shares only the DVC remote: it restores, runs its own pool's stages and refuses the others."""

import os
import subprocess
import sys

import pytest
import yaml

from components.files import sha256_tree
from components.paths import ROOT
from tests import pipeline_project
from tests.pipeline_project import clone, dvc, git, ledger

JOINT = "joint@elic-micro-llava"
FURTHER = "pipelines/further/dvc.yaml"


@pytest.fixture
def made(tmp_path):
    """A project with a DVC remote and a further pipeline; nothing has run."""
    project = pipeline_project.make(tmp_path / "made")
    dvc(project, "remote", "add", "-d", "shared", str(tmp_path / "remote"))
    double = {
        "wdir": "../..",
        "cmd": f"{sys.executable} step.py double && cp results/count.txt results/double.txt",
        "deps": ["results/count.txt"],
        "outs": ["results/double.txt"],
        "meta": {"pool": "gpu"},
    }
    (project / FURTHER).parent.mkdir(parents=True)
    (project / FURTHER).write_text(yaml.safe_dump({"stages": {"double": double}}))
    git(project, "add", "-A")
    git(project, "commit", "-q", "-m", "a remote, and a further pipeline")
    return project


def remote_repro(checkout, *arguments):
    search = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "flows.remote_repro", *arguments]
    environment = os.environ | {"PYTHONPATH": search}
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=600)


def test_stages_travel_through_the_remote(made, tmp_path):
    other = clone(made, tmp_path / "gpu-machine")
    refused = remote_repro(other, JOINT, "--pool", "gpu")
    assert refused.returncode != 0
    said = "stage render has no results in the DVC remote and is not for this pool"
    assert said in refused.stderr + refused.stdout
    assert ledger(made) == [] and not (other / "data/scenes.txt").exists()

    here = remote_repro(made, "render", "--pool", "cpu")
    assert here.returncode == 0, here.stdout + here.stderr
    assert ledger(made) == ["render"]

    there = remote_repro(other, JOINT, "--pool", "gpu")
    assert there.returncode == 0, there.stdout + there.stderr
    assert ledger(made) == ["joint"]  # render was restored

    back = remote_repro(made, "report", "--pool", "cpu")
    assert back.returncode == 0, back.stdout + back.stderr
    assert ledger(made) == ["count", "report"]
    adapter = "results/joint/elic-micro-llava/adapter"
    assert sha256_tree(made / adapter) == sha256_tree(other / adapter)

    further = remote_repro(other, f"{FURTHER}:double", "--pool", "gpu")
    assert further.returncode == 0, further.stdout + further.stderr
    assert ledger(made) == ["double"]  # count, which is for another pool, was restored
    assert (other / "results/double.txt").read_bytes() == (made / "results/count.txt").read_bytes()

    driver = clone(made, tmp_path / "driver")
    restored = remote_repro(driver)
    assert restored.returncode == 0, restored.stdout + restored.stderr
    assert ledger(made) == []
    assert sha256_tree(driver / "results") == sha256_tree(made / "results")
