"""Running one instance of a step: when its turn has come, into an empty folder, to the end or not at all."""

import contextlib
import hashlib
import importlib
import json
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components import config, environment, processes
from components.closure import import_closure
from components.errors import CotamError
from components.files import read_json, replace, sha256, sha256_tree, write_json
from components.locks import stage_lock
from components.paths import Paths
from components.step import Step
from components.step_inputs import Params, StepInputs
from components.task_inputs import TaskInputs
from components.tracking.stage_run import StageLog, stage_run

if TYPE_CHECKING:
    from components.variants import Run


@dataclass(frozen=True)
class Instance:
    """A step, what it is run for, and where.

    Attributes:
        names: what stands for {codec}, {mllm} and so on in the step's strings.
        params: the settings that it sees, as nested dictionaries.
        paths: of the checkout.
        run: the variant's run that it belongs to; None in the main pipeline.
    """

    step: Step
    names: dict[str, str]
    params: dict[str, Any]
    paths: Paths
    run: "Run | None" = None

    @property
    def stage(self) -> str:
        """`joint@elic-micro-llava`, as DVC calls it."""
        of = "-".join(self.names[axis] for axis in self.step.matrix)
        return f"{self.step.name}@{of}" if of else self.step.name

    @property
    def target(self) -> Path:
        """The folder that its results appear in."""
        return self.paths.root / self.step.out.format(**self.names)

    @property
    def work(self) -> Path:
        """The folder of its checkpoints. It is named after the inputs, which are hashed for it."""
        return self.paths.work / self.stage / self.input_hash()

    def inputs(self, work: Path, out: Path, log: StageLog) -> StepInputs:
        """What the step's function is given."""
        of_task = {"task": self.names["task"]} if "task" in self.names else {}
        return (TaskInputs if of_task else StepInputs)(
            params=Params(self.params),
            work=work,
            out=out,
            codec=self.names.get("codec"),
            mllm=self.names.get("mllm"),
            run=self.run,
            paths=self.paths,
            log=log,
            **of_task,
        )

    def input_hash(self) -> str:
        """Sixteen hex digits over all that goes into it: settings, libraries, models, code and data.

        A folder with a manifest.json (which holds the hashes of the files beside it) is known by its manifest.

        Raises:
            CotamError: an input is missing.
        """
        step, root = self.step, self.paths.root
        parts: dict[str, Any] = {"step": step.name, **self.names, "params": self.params}
        parts["libraries"] = environment.numeric_fingerprint()
        source = self.params.get("data", {}).get("source", "")
        deps = [dependency.replace("${data.source}", source).format(**self.names) for dependency in step.deps]
        needed = {dependency: root / dependency for dependency in deps}
        if step.models:
            needed["data/weights.json"] = self.paths.weights
        for name, path in needed.items():
            if not path.exists():
                raise CotamError(f"The step {step.name} needs {name}, which is not there; run `dvc repro`.")
        models = dict(config.dotted_keys(read_json(needed.pop("data/weights.json")))) if step.models else {}
        for key in (key.format(**self.names) for key in step.models):
            if key not in models:
                raise CotamError(f"data/weights.json does not have {key}; run `dvc repro`.")
            parts[key] = models[key]
        for name, path in needed.items():
            manifest = path / "manifest.json"
            if manifest.exists():
                parts[name] = sha256(manifest)
            else:
                parts[name] = sha256_tree(path) if path.is_dir() else sha256(path)
        for file in import_closure(step.module, root):
            parts[str(file)] = sha256(root / file)
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def publish(self, out: Path) -> None:
        """Give the results in `out` their place.

        Raises:
            CotamError: something is missing or was never declared.
        """
        names = {*self.step.outs, *self.step.metrics}
        if not names:
            replace(out, self.target)
            return
        written = {path.name for path in out.iterdir()}
        if written != names:
            wanted, found = (", ".join(sorted(of)) for of in (names, written))
            raise CotamError(f"The step {self.step.name} should write {wanted} but wrote {found}.")
        for name in sorted(names):
            replace(out / name, self.target / name)

    def is_published(self) -> bool:
        """Whether there are results in their place."""
        names = (*self.step.outs, *self.step.metrics)
        return self.target.exists() and all((self.target / name).exists() for name in names)


def run_instance(this: Instance) -> None:
    """Run it, alone or with the processes that were started with this one, when nobody else in the checkout does.

    Who has waited for another run of it, on the same inputs, takes that run's results for its own.

    Raises:
        CotamError: a missing input, a step that did not write what it declares, or several processes for a step that
            cannot be shared.
    """
    step = this.step
    if processes.count() > 1 and not step.trains:
        raise CotamError(f"{step.name} runs in one process; start it without torchrun.")
    record = this.paths.locks / f"{this.stage}.json"
    before = _read(record)
    # Heavy imports: before the stage's record begins, which is of its work alone.
    function = getattr(importlib.import_module(step.module), step.function)
    processes.join()
    first = processes.FirstWord()
    if processes.rank():
        # Not the first of several processes: it trains with the first, which alone writes what comes of it.
        if first.hear():
            with tempfile.TemporaryDirectory() as out:
                function(this.inputs(this.work, Path(out), StageLog()))
        return
    with stage_lock(this.stage, this.paths):
        last = _read(record)
        meanwhile = last is not None and last != before
        if meanwhile and last["inputs"] == this.input_hash() and this.is_published():
            first.say(False)
            said = f"Another process has run {this.stage} on the same inputs meanwhile"
            print(f"{said}; its results are in {this.target}.", file=sys.stderr, flush=True)
            return
        first.say(True)
        record.unlink(missing_ok=True)
        inputs = _run(this, function)
        write_json(record, {"inputs": inputs, "run": uuid.uuid4().hex})


def _read(record: Path) -> dict[str, str] | None:
    """The inputs of the stage's last run, and an id of that run; None while it is under way, or if it failed."""
    with contextlib.suppress(FileNotFoundError):
        return json.loads(record.read_text(encoding="utf-8"))
    return None


def _run(this: Instance, function: Callable[[StepInputs], None]) -> str:
    """Let the step do its work, and give the hash of what went in."""
    target, work = this.target, this.work
    out = target.with_name(f".{target.name}.{this.step.name}.tmp")  # the same name after a kill, so none are left over
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    work.mkdir(parents=True, exist_ok=True)
    try:
        with stage_run(this.stage, this.params) as log:
            function(this.inputs(work, out, log))
        this.publish(out)
    finally:
        shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(work.parent)
    return work.name
