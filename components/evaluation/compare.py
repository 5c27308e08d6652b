"""A codec, an MLLM and, if there is one, an adapter, put to the test at once: encode, ask, compare.

What the pipeline does in its steps `rate` and `evaluate`, on one style of the benchmarks, for the clean images, the
codec alone and `cotam`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.codec.architectures import AnyConfig, read_config
from components.errors import CotamError
from components.evaluation.benchmarks import BENCHMARKS
from components.evaluation.coding import Coder, load_guide
from components.evaluation.coding_cache import CodingCache
from components.evaluation.evaluate import Models, evaluate, scores_json
from components.evaluation.known_maps import KnownMaps
from components.evaluation.metrics import flat_metrics, points_of
from components.evaluation.pictures import benchmark_names, benchmark_pictures
from components.evaluation.rate import BENCH, Job, code, rates_of_styles
from components.evaluation.samples import asked_documents, write_samples
from components.evaluation.streams import COTAM, Setting, write_streams
from components.evaluation.summary import SCHEMA, summarise_pair
from components.files import atomic_write, read_json, write_json
from components.placing import best_device
from components.progress import track
from components.workers import run_jobs


@dataclass(frozen=True)
class Contest:
    """Who takes part, all by their folders, and how.

    Attributes:
        codec, mllm: the codec and the model that is asked.
        mllm_name: what it is called in the results.
        adapter: of this codec and this MLLM; without one, `cotam` does not take part.
        tower: the CLIP that guides.
        guidance: the settings' section of that name, without `tower`.
        qualities: of the codec, rising.
        cache: where streams are kept and found again; None: everything is coded.
        dtype: of the MLLM, as `load_mllm` takes it.
    """

    codec: Path
    mllm: Path
    mllm_name: str
    adapter: Path | None
    tower: Path
    guidance: Mapping[str, Any]
    qualities: Sequence[int]
    cache: Path | None = None
    dtype: str | None = None

    def check_qualities(self) -> None:
        """Raises CotamError: the codec is none, or does not have one of the qualities."""
        highest = self._codec_config().qualities - 1
        for quality in self.qualities:
            if not 0 <= quality <= highest:
                raise CotamError(f"There is no quality {quality}; choose 0 (fewest bits) to {highest}.")

    @property
    def codec_name(self) -> str:
        """The codec's method in the results: its architecture."""
        return self._codec_config().architecture

    def settings(self) -> list[Setting]:
        """What is encoded."""
        methods = [self.codec_name, *([COTAM] if self.adapter else [])]
        return [Setting(method, str(quality)) for method in methods for quality in self.qualities]

    def coder(self) -> Coder:
        """Load what encodes."""
        from components.codec import Codec

        device = best_device()
        guide = KnownMaps(load_guide(self.tower, **self.guidance, device=device)) if self.adapter else None
        cache = CodingCache(self.cache) if self.cache else None
        return Coder(Codec.from_pretrained(self.codec, device), guide, cache)

    def _codec_config(self) -> AnyConfig:
        try:
            return read_config(read_json(self.codec / "config.json"))
        except (ValueError, TypeError):
            raise CotamError(f"{self.codec} does not hold a codec; give a folder made by train_codec.") from None


def compare(
    contest: Contest, benchmarks: Path, work: Path, out: Path, *, workers: int, replicates: int, seed: int
) -> dict[str, Any]:
    """Encode the benchmarks, ask about them, and add up.

    Args:
        contest: who takes part.
        benchmarks: has the folder `bench`.
        work: a folder for what is half done.
        out: a folder where streams.zip, scores.json, metrics.json and samples/ are written.
        workers: processes.
        replicates, seed: of the bootstrap behind the intervals.

    Returns:
        A summary (docs/summary-schema.md) of this codec and this MLLM alone, and under `coding` how many images were
        `encoded` for it, and how many `from_cache`.

    Raises:
        CotamError: something is missing, damaged, or does not fit.
    """
    pictures = {BENCH: benchmark_pictures(benchmarks / BENCH)}
    jobs = [Job(setting, BENCH) for setting in contest.settings()]

    def start():
        coder = contest.coder()
        return lambda job: code(coder, job.setting, pictures[job.pictures])

    done = dict(track(run_jobs(jobs, start, workers), "encoding the benchmarks", len(jobs)))
    coded = {job: done[job] for job in jobs}
    write_streams(out / "streams.zip", ((job.setting, BENCH, coded[job].files) for job in jobs))

    models = Models(contest.codec, contest.mllm, contest.adapter, benchmarks, out / "streams.zip", contest.dtype)
    outcomes = evaluate(models, [BENCH], work, workers)
    codec, mllm = contest.codec_name, contest.mllm_name
    scores = scores_json(codec, mllm, outcomes, models)
    write_json(out / "scores.json", scores)
    write_json(out / "metrics.json", flat_metrics(codec, points_of(scores["styles"][BENCH])))
    answers = {job.setting: outcome["answers"] for job, outcome in outcomes.items()}
    write_samples(out / "samples", asked_documents(benchmarks / BENCH), answers)

    rates = {"codec": codec, "styles": rates_of_styles(pictures, coded)}
    entries = summarise_pair(codec, rates, scores, replicates, seed)
    by_mllm = {method: {mllm: entry} for method, entry in entries.items()}
    encoded = sum(result.encoded for result in coded.values())
    coding = {"encoded": encoded, "from_cache": len(jobs) * len(pictures[BENCH]) - encoded}
    return {"schema": SCHEMA, "benchmarks": list(BENCHMARKS), "codecs": {codec: by_mllm}, "coding": coding}


def first_images(benchmarks: Path, count: int, folder: Path) -> Path:
    """A folder of benchmarks with the first `count` images of the style, and what is asked about them."""
    names = benchmark_names(benchmarks / BENCH)[:count]
    (folder / BENCH / "images").mkdir(parents=True)
    for name in names:
        picture = f"{BENCH}/images/{name}.png"
        (folder / picture).symlink_to((benchmarks / picture).resolve())
    for benchmark in BENCHMARKS:
        lines = (benchmarks / BENCH / f"{benchmark}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        chosen = [line for line in lines if json.loads(line)["image"] in names]
        atomic_write(folder / BENCH / f"{benchmark}.jsonl", "".join(chosen))
    return folder
