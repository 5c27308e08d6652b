"""The steps of the ablation pipeline, as data: `pipelines/generate.py` writes pipelines/ablations/dvc.yaml from this.

`{variant}`, `{seed}`, `{name}`, `{codec}`, `{mllm}`, `{model}`, `{streams}` and `{start}` stand for what a run is and
uses (components/variants.py). What the main pipeline has is not made again: runs depend on its results.
"""

from components.config_variants import METHODS
from components.step import Step

_RUN = ("variant", "seed")
_READ = ("codec.{codec}", "mllm.{mllm}", "threads", "variants.{variant}")
_CODES = ("codec.{codec}", "evaluation.avif_qualities", "evaluation.qualities", "guidance", "threads")
_MODELS = ("codec.{codec}", "mllm.{mllm}")


def _of_adapter(method: str) -> tuple[str, ...]:
    keys = METHODS[method].adapter_keys
    return ("adapter",) if keys is None else tuple(f"adapter.{key}" for key in keys)


def _of_baselines(method: str) -> tuple[str, ...]:
    return tuple(f"baselines.{part}" for part in METHODS[method].baselines)


def _train(method: str) -> Step:
    return Step(
        name=f"train-{method}",
        module=f"components.training.methods.{method.replace('-', '_')}",
        function="train",
        summary=f"train what a variant of {method} needs",
        # What it does not read would train it again, as when another method gets a knob.
        params=(*_of_adapter(method), *_of_baselines(method), "guidance", "seed", *_READ),
        models=(*_MODELS, "tower"),
        deps=("data/shards", *METHODS[method].deps),
        out="results/variant-training/{name}",
        outs=("model",),
        metrics=("metrics.json",),
        pool="gpu",
        matrix=_RUN,
        runs=lambda run: run.trains and run.method == method,
    )


TRAINING = tuple(_train(name) for name, method in METHODS.items() if method.trains)

RATES = tuple(
    Step(
        name=name,
        module="components.evaluation.step_variant_rate",
        summary=f"encode the benchmarks as a variant does, {how}",
        params=(*_CODES, "variants.{variant}"),
        models=("codec.{codec}", "tower"),
        deps=("data/benchmarks", *deps),
        out="results/variant-rates/{name}",
        outs=("rates.json", "streams.zip"),
        matrix=_RUN,
        runs=runs,
    )
    for name, how, deps, runs in (
        ("rate-variant", "with a codec as it is", (), lambda run: run.encodes and not run.own_codec),
        ("rate-tuned", "with a codec of its own", ("{model}",), lambda run: run.encodes and run.own_codec),
    )
)

SCORES = tuple(
    Step(
        name=name,
        module="components.evaluation.step_variant_scores",
        summary=f"ask the MLLM about a variant's files, {how}",
        params=(*_READ, "evaluation.avif_qualities", "evaluation.qualities", "guidance", *more),
        models=_MODELS,
        deps=("components/evaluation/tasks", "data/benchmarks", "{streams}/rates.json", "{streams}/streams.zip", *deps),
        out="results/variants/{name}",
        outs=("scores.json",),
        metrics=("metrics.json",),
        pool="gpu",
        matrix=_RUN,
        runs=runs,
    )
    for name, how, deps, more, runs in (
        (
            "evaluate-variant",
            "with what it has trained",
            ("{model}",),
            ("adapter", "baselines", "data", "scenes"),
            lambda run: run.model,
        ),
        ("evaluate-plain", "as they are", (), (), lambda run: not run.model),
    )
)

VERDICTS = Step(
    name="verdicts",
    module="components.reporting.step_verdicts",
    summary="hold every claim of the paper's ablations against what was found",
    params=(
        *("adapter", "baselines", "codecs", "data", "evaluation.avif_qualities", "evaluation.bootstrap"),
        *("evaluation.qualities", "guidance", "mllms", "more_seeds", "scenes", "seed", "threads", "variants"),
    ),
    deps=(
        *("components/reporting/templates/ablations", "components/reporting/templates/shared"),
        *("results/rate", "results/scores", "results/variants"),
    ),
    out="results/ablations",
    outs=("index.html",),
    metrics=("verdicts.json",),
)

ABLATION_STEPS = (*TRAINING, *RATES, *SCORES, VERDICTS)
