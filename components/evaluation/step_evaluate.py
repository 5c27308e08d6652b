"""Ask the MLLM about the decoded benchmarks: scores.json, metrics.json, and every answer in samples/."""

from components.evaluation.benchmarks import STYLES
from components.evaluation.clips import clip_questions
from components.evaluation.evaluate import Models, Outcomes, evaluate, scores_json
from components.evaluation.metrics import Point, clip_metrics, flat_metrics, points_of
from components.evaluation.samples import asked_documents, write_samples
from components.evaluation.scores import CLIP_COLUMNS, COLUMNS
from components.evaluation.streams import CLIP_BENCHMARK, CLIPS, Setting
from components.files import write_json
from components.step_inputs import StepInputs


def run(inputs: StepInputs) -> None:
    """Evaluate one codec for one MLLM: clean images and all that lies in the codec's streams.zip.

    And videos, where the step `benchmarks` wrote any and the MLLM takes them.
    """
    paths, codec, mllm = inputs.paths, inputs.codec, inputs.mllm
    models = Models(
        codec=inputs.codec_weights,
        mllm=inputs.mllm_weights,
        adapter=paths.joint(codec, mllm) / "adapter",
        benchmarks=paths.benchmarks,
        streams=paths.rate(codec) / "streams.zip",
        dtype=inputs.mllm_dtype,
    )
    with_clips = (paths.benchmarks / CLIPS).is_dir() and models.take_videos()
    outcomes = evaluate(models, (*STYLES, CLIPS) if with_clips else STYLES, inputs.work, inputs.params.threads)
    scores = scores_json(codec, mllm, outcomes, models)
    points = points_of(scores["styles"]["bench"])
    metrics = flat_metrics(codec, points)
    curves = [(points, COLUMNS)]

    samples = inputs.out / "samples"
    write_samples(samples, asked_documents(paths.benchmarks / "bench"), _answers(outcomes, "bench"))
    if with_clips:
        points = points_of(scores["styles"][CLIPS], CLIP_COLUMNS)
        metrics |= clip_metrics(codec, points)
        curves.append((points, CLIP_COLUMNS))
        documents = ((CLIP_BENCHMARK, document) for document in clip_questions(paths.benchmarks / CLIPS))
        write_samples(samples / CLIPS, documents, _answers(outcomes, CLIPS))
    write_json(inputs.out / "scores.json", scores)
    write_json(inputs.out / "metrics.json", metrics)
    for points, columns in curves:
        for point in points:
            _log(inputs, point, columns)


def _answers(outcomes: Outcomes, style: str) -> dict[Setting, list[tuple[str, float]]]:
    return {job.setting: outcome["answers"] for job, outcome in outcomes.items() if job.style == style}


def _log(inputs: StepInputs, point: Point, columns: tuple[str, ...]) -> None:
    name = f"score/{inputs.codec}.{point.setting.method}.{inputs.mllm}"
    step = None if point.bpp is None else round(1000 * point.bpp)
    inputs.log.metrics({f"{name}/{column}": point.scores[column] for column in columns}, step)
