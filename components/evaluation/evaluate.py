"""Ask the MLLM every question about every coded version of the benchmarks, in a few processes, and keep the answers.

What a setting (method and quality) scored on a style is written to the work folder as soon as it is known, so that a
killed evaluation goes on where it was.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from components.evaluation.coding import Coder
from components.evaluation.material import material_of
from components.evaluation.receive import Receiver
from components.evaluation.scores import question_rows
from components.evaluation.streams import CLEAN, CLIPS, Setting, Streams
from components.files import read_json, write_json
from components.placing import best_device
from components.progress import track
from components.workers import run_jobs

SCHEMA = 1


@dataclass(frozen=True)
class Models:
    """The folders of what takes part, and of what is asked about. Only `cotam` needs an adapter.

    `dtype` is the MLLM's, as `load_mllm` takes it.
    """

    codec: Path
    mllm: Path
    adapter: Path | None
    benchmarks: Path
    streams: Path
    dtype: str | None = None

    def take_videos(self) -> bool:
        """Whether the MLLM is of a family that does.

        Raises:
            CotamError: there is no such family.
        """
        from components.mllm.loading import kinds_of
        from components.mllm.visual import Kind

        return Kind.VIDEO in kinds_of(self.mllm)

    def receiver(self) -> Receiver:
        """Load everything.

        Raises:
            CotamError: something is missing, or the adapter belongs to another codec or tower.
        """
        from components.adapter import LatentAdapter
        from components.codec import Codec
        from components.mllm import load_mllm
        from components.mllm.showing import check_fit

        device = best_device()
        codec, mllm = Codec.from_pretrained(self.codec, device), load_mllm(self.mllm, dtype=self.dtype)
        adapter = None if self.adapter is None else LatentAdapter.load(self.adapter).to(device)
        if adapter is not None:
            check_fit(adapter, mllm.tower, codec.config.latent_channels, codec.model_id)
        return Receiver(self.benchmarks, Streams(self.streams), Coder(codec), mllm, adapter)


@dataclass(frozen=True)
class Job:
    """All questions about one style's images as one setting brought them."""

    setting: Setting
    style: str

    @property
    def file(self) -> str:
        """Where the work folder keeps its outcome."""
        return f"{self.style}-{self.setting.method}-{self.setting.quality}.json"


Outcomes = dict[Job, dict[str, Any]]
"""Job -> {"questions", "scores" (of each), "answers" ([answer, score] of everything asked), "lmms_eval"}."""


class Taking(Protocol):
    """What an evaluation asks of who takes part (`Models`)."""

    benchmarks: Path
    streams: Path

    def receiver(self) -> "Views": ...


class Views(Protocol):
    """What a method makes of files (`Receiver`)."""

    mllm: Any

    def views(self, setting: Setting, style: str) -> dict[str, Any]: ...


def evaluate(
    models: Taking, styles: Sequence[str], work: Path, workers: int, settings: Sequence[Setting] | None = None
) -> Outcomes:
    """Ask about everything in the streams, and about the clean images; or about some `settings` of the streams alone.

    Args:
        models: the folders of what takes part.
        styles: of the benchmarks, each a folder of them; and "clips", where `models` are `Models` and take videos.
        work: keeps the outcome of every job that was finished; an evaluation on the same inputs goes on from there.
        workers: processes, which change nothing but the time.
        settings: None for all.

    Raises:
        CotamError: something is missing, damaged, or does not belong together; or a worker was killed.
    """
    streams = Streams(models.streams)
    for style in styles:
        streams.check(style, material_of(style).names(models.benchmarks / style))
    jobs = [
        Job(setting, style)
        for style in styles
        for setting in ((CLEAN, *streams.settings(style)) if settings is None else settings)
    ]
    missing = [job for job in jobs if not (work / job.file).exists()]
    missing.sort(key=lambda job: job.style != CLIPS)  # the longest first
    if missing:
        importlib.import_module("components.evaluation.suite")  # lmms-eval: slow, and so before the processes part
    finished = run_jobs(missing, lambda: _asker(models, styles), workers)
    for job, outcome in track(finished, "asking the MLLM", len(missing)):
        write_json(work / job.file, outcome)
    return {job: read_json(work / job.file) for job in jobs}


def _asker(models: Taking, styles: Sequence[str]) -> Callable[[Job], dict[str, Any]]:
    receiver = models.receiver()
    suites = {style: material_of(style).suite(models.benchmarks / style, receiver.mllm) for style in styles}

    def ask(job: Job) -> dict[str, Any]:
        shown = material_of(job.style).shown(receiver, job.setting, job.style)
        outcome = suites[job.style].run(shown)
        questions, scores = question_rows(outcome.asked)
        answers = [[one.answer, one.score] for one in outcome.asked]
        return {"questions": questions, "scores": scores, "answers": answers, "lmms_eval": outcome.aggregates}

    return ask


def scores_json(codec: str, mllm: str, outcomes: Outcomes, models: Taking) -> dict[str, Any]:
    """scores.json (docs/summary-schema.md)."""
    streams = Streams(models.streams)
    styles: dict[str, Any] = {}
    for job, outcome in outcomes.items():
        if job.style not in styles:
            pixels = sum(material_of(job.style).pixels(models.benchmarks / job.style).values())
            styles[job.style] = {"questions": outcome["questions"], "pixels": pixels, "bits": {}}
        style = styles[job.style]
        for name in ("scores", "lmms_eval"):
            style.setdefault(name, {}).setdefault(job.setting.method, {})[job.setting.quality] = outcome[name]
        if job.setting != CLEAN:
            bits = 8 * sum(map(len, streams.files(job.setting, job.style).values()))
            style["bits"].setdefault(job.setting.method, {})[job.setting.quality] = bits
    return {"schema": SCHEMA, "codec": codec, "mllm": mllm, "styles": styles}
