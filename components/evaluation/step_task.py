"""Evaluate one of lmms-eval's tasks: scores.json, metrics.json, and every answer in samples/.

The task's pictures as they are, and through every method at every quality. What a setting gave is written to the work
folder as soon as it is known, so that a killed evaluation goes on where it was, if it still asks the same of the same
data.
"""

from pathlib import Path
from typing import Any

from components.evaluation.metrics import flat_metrics, points_of
from components.evaluation.samples import write_samples
from components.evaluation.streams import CLEAN, COTAM, JPEG, WEBP, Setting
from components.evaluation.task_results import one_style, task_scores
from components.files import read_json, write_json
from components.mllm.loading import kinds_of
from components.mllm.visual import Kind
from components.placing import best_device
from components.progress import track
from components.task_inputs import TaskInputs

CACHE = ".cotam/cache/tasks"
"""In the checkout: what one MLLM had coded, the next finds here (coding_cache.py)."""
CACHE_BYTES = 64 << 30  # VQAv2's 40,000 pictures at ten qualities, with maps and without, are about 10 GiB


def run(inputs: TaskInputs) -> None:
    """Evaluate one task for one codec and one MLLM.

    An MLLM that takes no videos is not asked about any: no settings, no questions.
    """
    from components.evaluation.official import RULES, OfficialTask

    found: dict[str, Any] = {"codec": inputs.codec, "mllm": inputs.mllm, "task": inputs.task}
    samples = inputs.out / "samples"
    samples.mkdir()
    if RULES[inputs.task].videos and Kind.VIDEO not in kinds_of(inputs.mllm_weights):
        write_json(inputs.out / "scores.json", found | {"questions": []})
        write_json(inputs.out / "metrics.json", {})
        return
    task = OfficialTask(inputs.task, inputs.paths.root)
    outcomes = _outcomes(inputs, task)
    found |= task_scores(task, outcomes)
    write_json(inputs.out / "scores.json", found)
    points = points_of(one_style(found), (inputs.task,))
    write_json(inputs.out / "metrics.json", flat_metrics(inputs.codec, points, (inputs.task,)))
    write_samples(samples, _documents(task, outcomes[CLEAN]["units"]), _answers(task, outcomes))
    for point in points:
        name = f"score/{inputs.codec}.{point.setting.method}.{inputs.mllm}/lmms-eval.{inputs.task}"
        inputs.log.metric(name, point.scores[inputs.task], None if point.bpp is None else round(1000 * point.bpp))


def _settings(inputs: TaskInputs, videos: bool) -> list[Setting]:
    rates = inputs.params.evaluation
    of_method = {inputs.codec: rates.qualities, COTAM: rates.qualities}
    if not videos:  # whose yardstick would be a video codec
        of_method |= {JPEG: rates.jpeg_qualities, WEBP: rates.webp_qualities}
    return [CLEAN, *(Setting(method, str(quality)) for method, values in of_method.items() for quality in values)]


def _outcomes(inputs: TaskInputs, task: Any) -> dict[Setting, dict[str, Any]]:
    """What every setting gave; of those that are missing in the work folder, now."""
    settings, work = _settings(inputs, task.rules.videos), inputs.work / task.identity
    missing = [setting for setting in settings if not _file(work, setting).exists()]
    asker = _asker(inputs, task.task_dict) if missing else None
    for setting in track(missing, f"asking {inputs.mllm} about {inputs.task}"):
        given = asker.answer(task.requests, setting)
        scores, aggregates = task.score(given.answers)
        outcome = {"answers": given.answers, "sizes": given.sizes, "scores": scores, "lmms_eval": aggregates}
        shown = {"units": given.units} if setting == CLEAN else {}  # the same of all
        write_json(_file(work, setting), outcome | shown)
    return {setting: read_json(_file(work, setting)) for setting in settings}


def _asker(inputs: TaskInputs, task_dict: dict[str, Any]) -> Any:
    from components.adapter import LatentAdapter
    from components.codec import Codec
    from components.evaluation.coding import Coder, load_guide
    from components.evaluation.coding_cache import CodingCache
    from components.evaluation.known_maps import KnownMaps
    from components.evaluation.task_asking import TaskAsker
    from components.mllm import load_mllm
    from components.mllm.showing import check_fit

    device = best_device()
    codec = Codec.from_pretrained(inputs.codec_weights, device)
    mllm = load_mllm(inputs.mllm_weights, dtype=inputs.mllm_dtype)
    adapter = LatentAdapter.load(inputs.paths.joint(inputs.codec, inputs.mllm) / "adapter").to(device)
    check_fit(adapter, mllm.tower, codec.config.latent_channels, codec.model_id)
    guide = load_guide(**inputs.params.guidance.as_dict() | {"tower": inputs.tower_weights}, device=device)
    coder = Coder(codec, KnownMaps(guide), CodingCache(inputs.paths.root / CACHE, CACHE_BYTES))
    return TaskAsker(coder, mllm, adapter, task_dict)


def _file(work: Path, setting: Setting) -> Path:
    return work / f"{setting.method}-{setting.quality}.json"


def _documents(task: Any, units: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """What was asked, as `write_samples` takes it."""
    rows = []
    for request, document, unit in zip(task.requests, task.documents, units, strict=True):
        row = {"id": str(request.doc_id), "image": unit, "level": None, "family": None, "prompt": request.args[0]}
        truth = next(document[key] for key in ("answer", "multiple_choice_answer", "answers") if key in document)
        rows.append((task.name, row | {"answer": truth}))
    return rows


def _answers(task: Any, outcomes: dict[Setting, dict[str, Any]]) -> dict[Setting, list[tuple[str, float]]]:
    """(answer, what its question is worth) of every request."""
    question = {place: number for number, passes in enumerate(task.questions.values()) for place in passes}
    return {
        setting: [(answer, outcome["scores"][question[place]]) for place, answer in enumerate(outcome["answers"])]
        for setting, outcome in outcomes.items()
    }
