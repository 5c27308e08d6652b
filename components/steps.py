"""The steps of the pipeline, as data. `pipelines/generate.py` writes dvc.yaml from this; `cotam step` runs one.

A step is told here what it may read. It sees the settings it declares and no others, writes into an empty folder, and
its results appear in their place only when all of them are there.
"""

import hashlib
import importlib
import itertools
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components import config, environment, processes, variants
from components.closure import import_closure
from components.errors import CotamError
from components.files import read_json, replace, sha256, sha256_tree
from components.locks import stage_lock
from components.paths import CHECKOUT, Paths
from components.step import Step
from components.step_inputs import Params, StepInputs
from components.tracking.stage_run import StageLog, stage_run
from components.variant_steps import ABLATION_STEPS

_PAIR = ("codec", "mllm")
_SIZES = ("adapter.blocks", "adapter.heads", "adapter.start", "adapter.width")
_VIEWS = ("adapter.draws", "adapter.held_out", "adapter.qualities", "guidance")
_SCHEDULE = ("adapter.batch", "adapter.joint_epochs", "adapter.learning_rate", "adapter.warmup_epochs")
_TRAINING = ("seed", "threads", "codec.{codec}", "mllm.{mllm}", *_SIZES, *_VIEWS, *_SCHEDULE)
_RATES = ("evaluation.jpeg_qualities", "evaluation.qualities", "evaluation.webp_qualities")

STEPS = (
    Step(
        name="weights",
        module="components.step_weights",
        summary="hash the models that the settings name",
        params=("codec", "codecs", "guidance.tower", "mllm", "mllms", "variants"),
        deps=("pretrained",),
        out="data",
        outs=("weights.json",),
    ),
    Step(
        name="render",
        module="components.scenes.step_render",
        summary="draw the scenes that the adapter learns from",
        params=("scenes", "seed", "threads"),
        out="data/scenes",
    ),
    Step(
        name="shard",
        module="components.data.step_shard",
        summary="pack a folder of images into tar shards",
        params=("data", "seed"),
        deps=("${data.source}",),
        out="data/shards",
    ),
    Step(
        name="benchmarks",
        module="components.evaluation.step_benchmarks",
        summary="draw the benchmarks' images and write their questions",
        params=("evaluation.detail", "evaluation.images", "scenes.size", "seed"),
        out="data/benchmarks",
    ),
    Step(
        name="rate",
        module="components.evaluation.step_rate",
        summary="encode the benchmarks with every method at every quality",
        params=("codec.{codec}", "guidance", "seed", "threads", *_RATES),
        models=("codec.{codec}", "tower"),
        deps=("data/benchmarks",),
        out="results/rate/{codec}",
        outs=("rates.json", "streams.zip"),
        matrix=("codec",),
    ),
    Step(
        name="warmup",
        module="components.training.step_warmup",
        trains=True,
        summary="warm the adapter up, near the tower's entrance",
        params=("adapter.lambda_low", "adapter.warmup_layer", "adapter.warmup_mixed", *_TRAINING),
        models=("codec.{codec}", "mllm.{mllm}", "tower"),
        deps=("data/shards",),
        out="results/warmup/{codec}-{mllm}",
        outs=("adapter",),
        metrics=("metrics.json",),
        pool="gpu",
        matrix=_PAIR,
    ),
    Step(
        name="joint",
        module="components.training.step_joint",
        trains=True,
        summary="train the adapter on both losses",
        params=("adapter.lambda_high", "adapter.lambda_low", *_TRAINING),
        models=("codec.{codec}", "mllm.{mllm}", "tower"),
        deps=("data/shards", "results/warmup/{codec}-{mllm}/adapter"),
        out="results/joint/{codec}-{mllm}",
        outs=("adapter",),
        metrics=("metrics.json",),
        pool="gpu",
        matrix=_PAIR,
    ),
    Step(
        name="evaluate",
        module="components.evaluation.step_evaluate",
        summary="ask the MLLM about what was decoded",
        params=("codec.{codec}", "mllm.{mllm}", "seed", "threads", *_RATES),
        models=("codec.{codec}", "mllm.{mllm}"),
        deps=(
            "components/evaluation/tasks",
            "data/benchmarks",
            "results/joint/{codec}-{mllm}/adapter",
            "results/rate/{codec}/streams.zip",
        ),
        out="results/scores/{codec}-{mllm}",
        outs=("samples", "scores.json"),
        metrics=("metrics.json",),
        pool="gpu",
        matrix=_PAIR,
    ),
    Step(
        name="report",
        module="components.reporting.step_report",
        summary="rate-score curves, BD-rates and the page that shows them",
        params=(
            *("adapter", "codec", "codecs", "data", "evaluation", "guidance", "mllm", "mllms", "scenes", "seed"),
            "threads",
        ),
        deps=(
            "components/reporting/templates/report",
            "components/reporting/templates/shared",
            "data/benchmarks",
            "data/shards/manifest.json",
            "data/weights.json",
            "results/joint",
            "results/rate",
            "results/scores",
            "results/warmup",
        ),
        out="results/report",
        outs=("index.html",),
        metrics=("summary.json",),
    ),
)


def find(name: str) -> Step:
    """The step of that name.

    Raises:
        CotamError: there is none.
    """
    steps = (*STEPS, *ABLATION_STEPS)
    for step in steps:
        if step.name == name:
            return step
    raise CotamError(f"There is no step {name}; the steps are {', '.join(step.name for step in steps)}.")


def instances(step: Step, settings: config.Settings) -> Iterator[dict[str, str]]:
    """What a step is run with: {}, {"codec": "elic", "mllm": "micro-llava"} and so on, or all of a variant's run."""
    if step.runs:
        yield from (run.as_instance() for run in variants.runs(settings) if step.runs(run))
        return
    names = {"codec": settings.codecs, "mllm": settings.mllms}
    for values in itertools.product(*(names[axis] for axis in step.matrix)):
        yield dict(zip(step.matrix, values, strict=True))


def declared(step: Step, settings: config.Settings, instance: dict[str, str]) -> dict[str, Any]:
    """The settings that an instance of a step sees, as nested dictionaries of JSON values."""
    everything = settings.model_dump(mode="json", exclude_defaults=True)
    if step.runs:
        run = variants.find_run(settings, instance["variant"], int(instance["seed"]))
        everything = variants.settings_of(settings, run)
    seen: dict[str, Any] = {}
    for template in step.params:
        *parents, last = template.format(**instance).split(".")
        source, target = everything, seen
        for name in parents:
            source, target = source[name], target.setdefault(name, {})
        target[last] = source[last]
    return seen


def run_step(
    name: str,
    codec: str | None = None,
    mllm: str | None = None,
    paths: Paths = CHECKOUT,
    *,
    variant: str | None = None,
    seed: int | None = None,
) -> None:
    """Run one instance of a step in a checkout, to the end or not at all. Without a seed a variant has the main one.

    Raises:
        CotamError: an unknown or ambiguous instance, a missing input, a step that did not write what it declares, or
            several processes for one that cannot be shared.
    """
    step = find(name)
    settings = config.load(paths.root / "params.yaml")
    given = {"codec": codec, "mllm": mllm, "variant": variant}
    if variant is not None:
        given["seed"] = str(settings.seed if seed is None else seed)
    instance = _instance(step, settings, given)
    params = declared(step, settings, instance)
    stage = "@".join(part for part in (name, "-".join(instance[axis] for axis in step.matrix)) if part)
    names = {axis: instance.get(axis) for axis in ("codec", "mllm")}
    run = variants.find_run(settings, variant, int(instance["seed"])) if step.runs else None
    environment.be_quiet()
    environment.use_threads(settings.threads)

    def work_folder() -> Path:
        return paths.work / stage / input_hash(step, instance, params, paths)

    if processes.count() > 1 and not step.trains:
        raise CotamError(f"{name} runs in one process; start it without torchrun.")
    # Heavy imports: before the stage's record begins, which is of its work alone.
    function = getattr(importlib.import_module(step.module), step.function)

    def run_it(work: Path, out: Path, log: StageLog) -> None:
        function(StepInputs(params=Params(params), work=work, out=out, paths=paths, log=log, run=run, **names))

    processes.take_device()
    if processes.rank():
        # Not the first of several processes: it trains with the first, which alone writes what comes of it.
        with tempfile.TemporaryDirectory() as out:
            run_it(work_folder(), Path(out), StageLog())
        return

    with stage_lock(stage, paths):
        work = work_folder()
        target = paths.root / step.out.format(**instance)
        out = target.with_name(f".{target.name}.{step.name}.tmp")  # the same name after a kill, so none are left over
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        work.mkdir(parents=True, exist_ok=True)
        try:
            with stage_run(stage, params) as log:
                run_it(work, out, log)
            _publish(step, out, target)
        finally:
            shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(work.parent)


def input_hash(step: Step, instance: dict[str, str], params: dict[str, Any], paths: Paths) -> str:
    """Sixteen hex digits over all that goes into an instance: settings, libraries, models, code and data.

    A folder with a manifest.json (which holds the hashes of the files beside it) is known by its manifest.

    Raises:
        CotamError: an input is missing.
    """
    parts: dict[str, Any] = {"step": step.name, **instance, "params": params}
    parts["libraries"] = environment.numeric_fingerprint()
    needed = {dependency: paths.root / dependency for dependency in _dependencies(step, instance, params)}
    if step.models:
        needed["data/weights.json"] = paths.weights
    for name, path in needed.items():
        if not path.exists():
            raise CotamError(f"The step {step.name} needs {name}, which is not there; run `dvc repro`.")
    models = dict(config.dotted_keys(read_json(needed.pop("data/weights.json")))) if step.models else {}
    for key in (key.format(**instance) for key in step.models):
        if key not in models:
            raise CotamError(f"data/weights.json does not have {key}; run `dvc repro`.")
        parts[key] = models[key]
    for name, path in needed.items():
        manifest = path / "manifest.json"
        if manifest.exists():
            parts[name] = sha256(manifest)
        else:
            parts[name] = sha256_tree(path) if path.is_dir() else sha256(path)
    for file in import_closure(step.module, paths.root):
        parts[str(file)] = sha256(paths.root / file)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _dependencies(step: Step, instance: dict[str, str], params: dict[str, Any]) -> list[str]:
    source = params.get("data", {}).get("source", "")
    return [dependency.replace("${data.source}", source).format(**instance) for dependency in step.deps]


def _instance(step: Step, settings: config.Settings, given: dict[str, str | None]) -> dict[str, str]:
    asked = {axis: value for axis, value in given.items() if value is not None}
    choices = [choice for choice in instances(step, settings) if asked.items() <= choice.items()]
    if len(choices) == 1:
        return choices[0]
    known = "; ".join(
        " ".join(f"--{axis} {choice[axis]}" for axis in step.matrix) or "no options"
        for choice in instances(step, settings)
    )
    raise CotamError(f"The step {step.name} is run with one of: {known}.")


def _publish(step: Step, out: Path, target: Path) -> None:
    """Give the results their place; complain about what is missing or was never declared."""
    names = {*step.outs, *step.metrics}
    if not names:
        replace(out, target)
        return
    written = {path.name for path in out.iterdir()}
    if written != names:
        raise CotamError(
            f"The step {step.name} should write {', '.join(sorted(names))} but wrote {', '.join(sorted(written))}."
        )
    for name in sorted(names):
        replace(out / name, target / name)
