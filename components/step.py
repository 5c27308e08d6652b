"""What a step of a pipeline is. Which there are is in components/steps.py and components/variant_steps.py."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.variants import Run


AXES = {"codec": "codecs", "mllm": "mllms", "task": "evaluation.tasks"}
"""What a step of the main pipeline may be repeated over, and the setting that lists the names."""


@dataclass(frozen=True)
class Step:
    """One step. Strings may hold {codec}, {mllm}, {task}, and in the ablation pipeline more, for an instance's names.

    Attributes:
        name: of the DVC stage; an instance is called `name@codec-mllm`.
        module: has `run(inputs: StepInputs) -> None`, or a function called otherwise.
        summary: one line for `cotam step --help`.
        params: dotted keys of params.yaml, the only ones that `run` sees; a section's name stands for all of it.
        models: keys of data/weights.json: the step depends on these models' hashes.
        deps: files and folders that it reads; its code is not listed, it is found.
        out: the folder that it writes.
        outs: the names in that folder that are results; empty: the whole folder is one.
        metrics: further names, which `dvc metrics show` and `dvc params diff` understand.
        pool: which machines it wants, `cpu` or `gpu`.
        matrix: what it is repeated over, of `AXES`; where such a list is empty, it is not run.
        function: what its module calls `run`.
        trains: whether several processes share it where the machine says so (components/processes.py).
        runs: in the ablation pipeline, whether it is a step of that run (components/variants.py).
    """

    name: str
    module: str
    summary: str
    out: str
    params: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    deps: tuple[str, ...] = ()
    outs: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    pool: str = "cpu"
    matrix: tuple[str, ...] = ()
    function: str = "run"
    trains: bool = False
    runs: "Callable[[Run], object] | None" = None
