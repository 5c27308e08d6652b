"""What lmms-eval finds of this project when it starts (entry point group `lmms_eval.models`)."""

import sys
from pathlib import Path

from lmms_eval.models.registry_v2 import ModelManifest

NAME = "cotam"
MODELS = ModelManifest(model_id=NAME, simple_class_path="components.evaluation.lmms_model.CotamModel")


def _refuse_unknown_tasks() -> None:
    """Have `lmms-eval --model cotam` exit with 1: it looks tasks up before it makes the model, and exits with 0."""
    from lmms_eval.tasks import TaskManager

    match = TaskManager.match_tasks

    def match_tasks(self: TaskManager, task_list: list[str]) -> list[str]:
        for task in task_list if self.model_name == NAME else ():
            if not match(self, [task]) and not Path(task).is_file():
                sys.exit(f"cotam: There is no task {task!r}; `lmms-eval tasks list` names all.")
        return match(self, task_list)

    TaskManager.match_tasks = match_tasks


if "lmms_eval.__main__" in sys.modules:  # the command that evaluates: no other has use for the tasks, or loads them
    _refuse_unknown_tasks()
