"""What all tests share: repeatable hypothesis, one thread, silent libraries, and small checkouts to run steps in."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

from components.environment import be_quiet
from components.paths import ROOT
from tests.faults import (  # noqa: F401 - a fixture, and what pytest calls
    injected,
    pytest_collection_modifyitems,
    pytest_runtest_logreport,
    pytest_sessionfinish,
)

os.environ["OMP_NUM_THREADS"] = "1"
be_quiet()
settings.register_profile("cotam", derandomize=True, deadline=None)
settings.load_profile("cotam")

_STUB = '''"""A stand-in for a step: writes what the step declares, made of the settings that it sees."""

import json


def {function}(inputs):
    for name in {names}:
        path = inputs.out / name
        if "." not in name:
            path.mkdir()
            path /= "file.json"
        path.write_text(json.dumps({{"{step}": inputs.params.as_dict()}}))
'''


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose steps do nothing but write files: real settings, real graph, no work."""
    return write_checkout_of_stubs(tmp_path)


def settings_with(variants: str) -> str:
    """params.yaml with these variants (YAML) instead of its own, each trained once."""
    text = (ROOT / "params.yaml").read_text()
    return f"{text[: text.index('more_seeds:')]}more_seeds: []\nvariants:\n{variants}"


def write_checkout_of_stubs(tmp_path: Path, variants: str = "  full: {}\n") -> Path:
    """Write such a checkout, with few variants: every run makes DVC's graph longer."""
    from components.steps import ABLATION_STEPS, STEPS
    from pipelines.generate import contents

    (tmp_path / "params.yaml").write_text(settings_with(variants))
    for name in ("requirements.lock", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, tmp_path)
    for file in (ROOT / "components").glob("*.py"):
        (tmp_path / "components").mkdir(exist_ok=True)
        shutil.copy(file, tmp_path / "components")
    for folder in ("components/commands", "components/tracking"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for step in (*STEPS, *ABLATION_STEPS):
        if step.name != "weights":
            module = tmp_path.joinpath(*step.module.split(".")).with_suffix(".py")
            module.parent.mkdir(parents=True, exist_ok=True)
            names = [*step.outs, *step.metrics] or ["manifest.json"]
            module.write_text(_STUB.format(names=names, step=step.name, function=step.function))
    models = ("codec/elic-micro", "codec/dcae-micro", "mllm/micro-llava", "clip/micro")
    pages = (f"components/reporting/templates/{name}" for name in ("ablations", "report", "shared"))
    folders = ("components/evaluation/tasks", *pages, "pipelines")
    for name in (*(f"pretrained/{model}" for model in models), *folders):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "config.json").write_text(f'{{"name": "{name}"}}')
    for path, text in contents(tmp_path).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path
