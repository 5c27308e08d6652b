"""A project of four quick stages in the shape of the real one: same settings, same names, same results to register.

Every stage that runs writes its name into a ledger outside the project. `joint` waits while the file `hold` is beside
the ledger, so that a test can kill something while a stage is certainly running.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from components.paths import ROOT
from tests.made_up_summary import summary

STAGES = ["count", "joint@elic-micro-llava", "render", "report"]

_STEP = '''
import json, pathlib, shutil, sys, time
import yaml

outside = pathlib.Path({outside!r})
name, settings = sys.argv[1], yaml.safe_load(open("params.yaml"))
if name == "render":
    pathlib.Path("data").mkdir(exist_ok=True)
    pathlib.Path("data/scenes.txt").write_text("scene\\n" * settings["scenes"]["images"])
if name == "count":
    pathlib.Path("results").mkdir(exist_ok=True)
    pathlib.Path("results/count.txt").write_text(str(len(open("data/scenes.txt").readlines())))
if name == "joint":
    from components.locks import die_with_parent
    die_with_parent()  # as `cotam step` does
    from components.tracking.stage_run import stage_run
    out = pathlib.Path("results/joint/elic-micro-llava")
    (out / "adapter").mkdir(parents=True, exist_ok=True)
    with stage_run("joint@elic-micro-llava", {{"lambda_high": settings["adapter"]["lambda_high"]}}) as log:
        log.metric("loss", 2.0, step=0)
        (outside / "running").touch()
        while (outside / "hold").exists():
            time.sleep(0.1)
        log.metric("loss", 1.0, step=1)
    (out / "adapter" / "config.json").write_text(json.dumps(settings["adapter"]))
    (out / "adapter" / "model.safetensors").write_bytes(b"weights")
    (out / "metrics.json").write_text(json.dumps({{"high": {{"final": 0.25}}, "parts": [1, 2]}}))
if name == "report":
    print("the report is being written")
    out = pathlib.Path("results/report")
    out.mkdir(parents=True, exist_ok=True)
    (out / "index.html").write_text("<p>report</p>")
    shutil.copy("made_up.json", out / "summary.json")
with (outside / "ledger").open("a") as ledger:
    ledger.write(name + "\\n")
'''

_DVC = {  # what `dvc init` and `dvc config` write, without starting DVC three times
    ".dvc/config": "[core]\n    analytics = false\n    autostage = false\n",
    ".dvc/.gitignore": "/config.local\n/tmp\n/cache\n",
    ".dvcignore": "",
}

_JOINT = "results/joint/elic-micro-llava"


def _stages() -> dict:
    def command(name: str) -> str:
        return f"{sys.executable} step.py {name}"

    return {
        "render": {
            "cmd": command("render"),
            "params": ["scenes"],
            "outs": ["data/scenes.txt"],
            "meta": {"pool": "cpu"},
        },
        "count": {
            "cmd": command("count"),
            "deps": ["data/scenes.txt"],
            "outs": ["results/count.txt"],
            "meta": {"pool": "cpu"},
        },
        "joint": {
            "matrix": {"codec": "${codecs}", "mllm": "${mllms}"},
            "cmd": command("joint"),
            "deps": ["data/scenes.txt"],
            "params": ["adapter.lambda_high"],
            "outs": [f"{_JOINT}/adapter"],
            "metrics": [f"{_JOINT}/metrics.json"],
            "meta": {"pool": "gpu"},
        },
        "report": {
            "cmd": command("report"),
            "deps": ["results/count.txt", f"{_JOINT}/adapter", "made_up.json"],
            "outs": ["results/report/index.html"],
            "metrics": ["results/report/summary.json"],
        },
    }


def make(folder: Path) -> Path:
    """Write the project to `folder`/project, as a git and DVC checkout, and return its path."""
    project = folder / "project"
    project.mkdir(parents=True)
    codec = folder / "codec"
    codec.mkdir()
    (codec / "config.json").write_text("{}")
    (codec / "model.safetensors").write_bytes(b"codec weights")
    settings = (ROOT / "params.yaml").read_text().replace("pretrained/codec/elic-micro", str(codec))
    (project / "params.yaml").write_text(settings)
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": _stages()}, sort_keys=False))
    (project / "step.py").write_text(_STEP.format(outside=str(folder)))
    (project / "made_up.json").write_text(json.dumps(summary()))
    (project / ".gitignore").write_text(".cotam/\n/data/\n/results/\n")
    for name, text in _DVC.items():
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text(text)
    git(project, "init", "-q")
    git(project, "add", "-A")
    git(project, "commit", "-q", "-m", "start")
    return project


def ledger(project: Path) -> list[str]:
    """The stages that have run since the last call, in order."""
    path = project.parent / "ledger"
    names = path.read_text().split() if path.exists() else []
    path.unlink(missing_ok=True)
    return names


def git(folder: Path, *arguments: str) -> str:
    """Run git as somebody, and return what it prints."""
    somebody = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.org"]
    return subprocess.run(["git", *somebody, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def dvc(folder: Path, *arguments: str) -> str:
    """Run DVC, and return what it prints."""
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def clone(project: Path, folder: Path) -> Path:
    """A second checkout of the same commit."""
    shutil.rmtree(folder, ignore_errors=True)
    git(project, "clone", "-q", str(project), str(folder))
    return folder
