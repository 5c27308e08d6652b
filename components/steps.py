"""The steps of the pipeline, as data. `pipelines/generate.py` writes dvc.yaml from this; `cotam step` runs one.

A step is told here what it may read: it sees the settings that it declares and no others (components/step_run.py).
"""

import itertools
from collections.abc import Iterator
from operator import attrgetter
from typing import Any

from components import config, environment, variants
from components.errors import CotamError
from components.paths import CHECKOUT, Paths
from components.step import AXES, Step
from components.step_run import Instance, run_instance
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
        params=("evaluation.clips", "evaluation.detail", "evaluation.images", "scenes.size", "seed"),
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
        name="evaluate-task",
        module="components.evaluation.step_task",
        summary="ask the MLLM about one of lmms-eval's tasks",
        params=("codec.{codec}", "guidance", "mllm.{mllm}", "threads", *_RATES),
        models=("codec.{codec}", "mllm.{mllm}", "tower"),
        deps=("results/joint/{codec}-{mllm}/adapter",),
        # Among the scores, of which the report reads all: it depends on these where there are any.
        out="results/scores/{codec}-{mllm}/tasks/{task}",
        outs=("samples", "scores.json"),
        metrics=("metrics.json",),
        pool="gpu",
        matrix=(*_PAIR, "task"),
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
    for values in itertools.product(*(attrgetter(AXES[axis])(settings) for axis in step.matrix)):
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
    task: str | None = None,
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
    given = {"codec": codec, "mllm": mllm, "task": task, "variant": variant}
    if variant is not None:
        given["seed"] = str(settings.seed if seed is None else seed)
    names = _instance(step, settings, given)
    run = variants.find_run(settings, variant, int(names["seed"])) if step.runs else None
    environment.be_quiet()
    environment.use_threads(settings.threads)
    run_instance(Instance(step, names, declared(step, settings, names), paths, run))


def _instance(step: Step, settings: config.Settings, given: dict[str, str | None]) -> dict[str, str]:
    asked = {axis: value for axis, value in given.items() if value is not None}
    choices = [choice for choice in instances(step, settings) if asked.items() <= choice.items()]
    if len(choices) == 1:
        return choices[0]
    if "task" in step.matrix and not settings.evaluation.tasks:
        raise CotamError(f"The step {step.name} is not run: evaluation.tasks in params.yaml is empty.")
    known = "; ".join(
        " ".join(f"--{axis} {choice[axis]}" for axis in step.matrix) or "no options"
        for choice in instances(step, settings)
    )
    raise CotamError(f"The step {step.name} is run with one of: {known}.")
