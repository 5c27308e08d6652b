"""What docs/adding-a-method.md says is done, word for word, in a small checkout with code of its own."""

import re
import shutil
import subprocess
import sys

import pytest
import yaml

from components.files import read_json
from components.paths import ROOT
from components.steps import run_step
from tests.small_checkout import scenes, write_checkout, write_shards, write_small_benchmarks

BLOCK = re.compile(r"^(?P<before>[^\n]*)\n\n```(?P<language>\w+)\n(?P<body>.*?)^```$", re.M | re.S)
NEW = re.compile(r"Write `([^`]+)`:")
EDIT = re.compile(r"In `([^`]+)`, below `([^`]+)`:")
SETTINGS = {
    "adapter.qualities": "[1, 8]",
    "adapter.warmup_epochs": "1",
    "adapter.joint_epochs": "1",
    "evaluation.qualities": "[1, 8]",
    "evaluation.bootstrap": "20",
    "seed": "7",  # the page speaks of it
    "variants": "{full: {}}",
}

_RUN = '''
import runpy, shlex, sys
from pathlib import Path
from components.cli import main
from components.paths import ROOT

assert ROOT == Path.cwd(), ROOT
for line in Path("commands").read_text().splitlines():
    program, *words = shlex.split(line)
    if program == "cotam":
        assert main(words) == 0, line
    else:
        assert words[:2] == ["-m", "pipelines.generate"], line
        sys.argv = words[1:]
        try:
            runpy.run_module("pipelines.generate", run_name="__main__")
        except SystemExit as end:
            assert not end.code, line
'''


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """After the main pipeline, with a copy of the code to be changed."""
    paths = write_checkout(tmp_path_factory.mktemp("checkout"), SETTINGS)
    write_shards(paths.shards, scenes(20))
    write_small_benchmarks(paths, 3)
    for step in ("rate", "warmup", "joint", "evaluate"):
        run_step(step, paths=paths)
    root = paths.root
    (root / "components").unlink()
    for folder in ("components", "pipelines"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "requirements.lock", root)
    # As people write it: one entry a line, below the key.
    settings = (root / "params.yaml").read_text()
    settings = re.sub(r"^variants:.*?(?=^\S|\Z)", "variants:\n  full: {}\n", settings, flags=re.M | re.S)
    (root / "params.yaml").write_text(settings)
    return root


@pytest.fixture(scope="module")
def followed(checkout):
    """The page, followed to its end; the commands that it gave."""
    commands = []
    for block in BLOCK.finditer((ROOT / "docs/adding-a-method.md").read_text()):
        if block["language"] == "bash":
            commands += block["body"].splitlines()
        elif new := NEW.fullmatch(block["before"]):
            assert not (checkout / new[1]).exists()
            (checkout / new[1]).write_text(block["body"])
        else:
            name, anchor = EDIT.fullmatch(block["before"]).groups()
            path, anchor = checkout / name, f"{anchor}\n"
            text = path.read_text()
            assert text.count(anchor) == 1, anchor
            path.write_text(text.replace(anchor, anchor + block["body"]))
    (checkout / "commands").write_text("\n".join(commands))
    done = subprocess.run([sys.executable, "-c", _RUN], cwd=checkout, capture_output=True, text=True,
                          env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(checkout), "HOME": str(checkout),
                               "OMP_NUM_THREADS": "1"})  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return commands, done.stdout


def test_the_page_gives_the_commands_that_the_test_knows(followed):
    commands, _ = followed
    assert [line.split()[2] for line in commands if line.startswith("cotam")] == [
        "rate-variant", "evaluate-variant", "train-mean-shift", "evaluate-variant", "verdicts",
    ]  # fmt: skip


def test_both_additions_have_results_and_a_comparison(followed, checkout):
    _, said = followed
    assert "k-200" in said and "mean-shift" in said
    found = read_json(checkout / "results/ablations/verdicts.json")["variants"]
    assert found["mean-shift"]["method"] == "mean-shift" and found["mean-shift"]["seeds"] == [7]
    assert found["k-200"]["changes"] == {"guidance": {"k": 2.0}, "adapter_of": "full"}
    assert found["mean-shift"]["bd_rate"].keys() >= {"mean"}
    metrics = read_json(checkout / "results/variant-training/mean-shift-7/metrics.json")
    assert 0 < metrics["training"]["left"] <= 1


def test_the_graph_knows_both(followed, checkout):
    stages = yaml.safe_load((checkout / "pipelines/ablations/dvc.yaml").read_text())["stages"]
    assert "mean-shift-7" in stages["train-mean-shift"]["foreach"]
    assert "components/training/methods/mean_shift.py" in stages["train-mean-shift"]["do"]["deps"]
    assert stages["evaluate-variant"]["foreach"]["k-200-7"]["streams"] == "results/variant-rates/k-200-7"
    assert stages["evaluate-variant"]["foreach"].keys() == {"full-7", "k-200-7", "mean-shift-7"}
    assert "components/mllm/mean_shift.py" in stages["evaluate-variant"]["do"]["deps"]


def test_the_page_names_what_there_is():
    from components.config_variants import Variant

    text = (ROOT / "docs/adding-a-method.md").read_text()
    for key in Variant.model_fields:
        assert f"`{key}`" in text
