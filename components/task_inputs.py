"""What a step is given that evaluates one of lmms-eval's tasks."""

from dataclasses import dataclass

from components.step_inputs import StepInputs


@dataclass(frozen=True)
class TaskInputs(StepInputs):
    """The same as every step, and which task.

    Attributes:
        task: lmms-eval's name, one of `evaluation.tasks`.
    """

    task: str = ""
