"""Ask the MLLM about the decoded benchmarks: scores.json, metrics.json, and every answer in samples/."""

from components.evaluation.benchmarks import STYLES
from components.evaluation.evaluate import Models, evaluate, scores_json
from components.evaluation.metrics import flat_metrics, points_of
from components.evaluation.samples import write_samples
from components.evaluation.scores import COLUMNS
from components.files import write_json
from components.step_inputs import StepInputs


def run(inputs: StepInputs) -> None:
    """Evaluate one codec for one MLLM: clean images and all that lies in the codec's streams.zip."""
    paths, codec, mllm = inputs.paths, inputs.codec, inputs.mllm
    models = Models(
        codec=inputs.codec_weights,
        mllm=inputs.mllm_weights,
        adapter=paths.joint(codec, mllm) / "adapter",
        benchmarks=paths.benchmarks,
        streams=paths.rate(codec) / "streams.zip",
    )
    outcomes = evaluate(models, STYLES, inputs.work, inputs.params.threads)
    scores = scores_json(codec, mllm, outcomes, models)
    points = points_of(scores["styles"]["bench"])

    write_json(inputs.out / "scores.json", scores)
    write_json(inputs.out / "metrics.json", flat_metrics(codec, points))
    answers = {job.setting: outcome["answers"] for job, outcome in outcomes.items() if job.style == "bench"}
    write_samples(inputs.out / "samples", paths.benchmarks / "bench", answers)
    for point in points:
        name = f"score/{codec}.{point.setting.method}.{mllm}"
        step = None if point.bpp is None else round(1000 * point.bpp)
        inputs.log.metrics({f"{name}/{column}": point.scores[column] for column in COLUMNS}, step)
