"""scores.json of one of lmms-eval's tasks (docs/summary-schema.md), and how it is read as a style of benchmarks."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.evaluation.streams import CLEAN, Setting
from components.paths import Paths

if TYPE_CHECKING:
    from components.evaluation.official import OfficialTask

SCHEMA = 1
DATA = Path("data/lmms-eval")
"""In the checkout: datasets in folders of their names; where there is none, lmms-eval looks where it always does."""


def task_folder(paths: Paths, codec: str, mllm: str, task: str) -> Path:
    """Where a task's `scores.json`, `metrics.json` and `samples/` lie (stage `evaluate-task`)."""
    return paths.scores(codec, mllm) / "tasks" / task


def task_scores(task: "OfficialTask", outcomes: Mapping[Setting, Mapping[str, Any]]) -> dict[str, Any]:
    """Scores and rates of every setting.

    Args:
        task: that was asked.
        outcomes: setting -> {"sizes", "scores", "lmms_eval"}, and for clean images "units" (step_task.py).
    """
    units = outcomes[CLEAN]["units"]
    images = list(dict.fromkeys(units))
    rules, questions = task.rules, []
    for name, passes in task.questions.items():
        document = task.documents[passes[0]]
        questions.append(
            {
                "benchmark": task.name,
                "id": name,
                "image": units[passes[0]],
                "level": None,
                "family": None,
                "category": rules.category(document),
                "pair": rules.pair(document),
            }
        )
    found: dict[str, Any] = {"schema": SCHEMA, "images": images, "questions": questions, "methods": {}}
    found["pixels"] = [outcomes[CLEAN]["sizes"][name][0] for name in images]
    for setting, outcome in outcomes.items():
        for key in ("scores", "lmms_eval"):
            found.setdefault(key, {}).setdefault(setting.method, {})[setting.quality] = outcome[key]
        if setting != CLEAN:
            sizes = [outcome["sizes"][name] for name in images]
            files = {"bits": [bits for _, bits, _ in sizes], "header_bits": [head for _, _, head in sizes]}
            found["methods"].setdefault(setting.method, {})[setting.quality] = files
    return found


def one_style(found: Mapping[str, Any]) -> dict[str, Any]:
    """The same as `points_of` (metrics.py) takes a style of benchmarks."""
    bits = {
        method: {quality: sum(files["bits"]) for quality, files in qualities.items()}
        for method, qualities in found["methods"].items()
    }
    return {
        "questions": found["questions"],
        "scores": found["scores"],
        "bits": bits,
        "pixels": sum(found["pixels"]),
    }
