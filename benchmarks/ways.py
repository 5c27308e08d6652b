"""Several ways of guiding one codec, with and without an adapter, asked about at once: what two benchmarks share."""

import argparse
import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from components import config
from components.codec import container
from components.environment import be_quiet, use_threads
from components.evaluation.coding import Coder, portions
from components.evaluation.pictures import Pictures
from components.evaluation.scores import MEAN, question_rows
from components.evaluation.streams import CLEAN
from components.evaluation.summary import summarise_pair
from components.progress import track
from components.workers import run_jobs

PLAIN = "plain"
"""The codec alone, which the others are held against."""
ADAPTED = "+adapter"
Levels = Sequence[np.ndarray] | np.ndarray | None
"""Of every picture its level map, int8 (rows, columns); None: no maps."""


@dataclass(frozen=True)
class Models:
    """Folders of who takes part; `adapter` may be None."""

    codec: Path | str
    mllm: Path | str
    adapter: Path | None


@dataclass(frozen=True)
class Job:
    """One way at one quality; the clean images have neither."""

    way: str
    quality: int | None


@dataclass(frozen=True)
class Asked:
    """Sizes of all files and scores of all questions, as `summarise_pair` takes them."""

    rates: dict
    scores: dict

    def against(self, anchor: str, settings: config.Settings) -> dict[str, dict]:
        """Way, and `clean` -> its entry in a summary (docs/summary-schema.md), held against one of the ways."""
        return summarise_pair(anchor, self.rates, self.scores, settings.evaluation.bootstrap, settings.seed)


def code_and_ask(
    folder: Path,
    pictures: Pictures,
    maps: Mapping[str, Levels],
    ways: Sequence[str],
    models: Models,
    settings: config.Settings,
) -> Asked:
    """Code every picture in every way at every quality, and ask about it.

    Args:
        folder: the benchmarks.
        pictures: theirs.
        maps: where a way's maps come from, by its name without `ADAPTED`.
        ways: names of maps; with `ADAPTED` behind them, what was decoded passes the adapter.
        models: who takes part.
        settings: qualities and processes.
    """
    jobs = [Job(CLEAN.method, None), *(Job(way, quality) for quality in settings.evaluation.qualities for way in ways)]
    importlib.import_module("components.evaluation.suite")  # lmms-eval: slow, and so before the processes part
    start = partial(Asker, folder, pictures, maps, models)
    done = dict(track(run_jobs(jobs, start, settings.threads), "coding and asking", len(jobs)))
    files: dict[str, dict] = {}
    scores: dict[str, dict] = {CLEAN.method: {CLEAN.quality: done[jobs[0]].scores}}
    for job in jobs[1:]:
        files.setdefault(job.way, {})[str(job.quality)] = done[job].files
        scores.setdefault(job.way, {})[str(job.quality)] = done[job].scores
    rates = {"images": list(pictures), "pixels": [picture[..., 0].size for picture in pictures.values()]}
    scored = {"questions": done[jobs[0]].questions, "scores": scores}
    return Asked({"styles": {"bench": rates | {"methods": files}}}, {"styles": {"bench": scored}})


@dataclass(frozen=True)
class Done:
    """What a job found: the questions, their scores, and the sizes of its files (None for clean images)."""

    questions: list[dict]
    scores: list[float]
    files: dict[str, list[int]] | None


class Asker:
    """The models of one process, and what it does with a job: code, decode, ask."""

    def __init__(self, folder: Path, pictures: Pictures, maps: Mapping[str, Levels], models: Models):
        from components.adapter import LatentAdapter
        from components.codec import Codec
        from components.evaluation.suite import Suite
        from components.mllm import load_mllm

        self.pictures, self.maps = pictures, maps
        self.codec = Codec.from_pretrained(models.codec)
        self.mllm = load_mllm(models.mllm)
        self.adapter = LatentAdapter.load(models.adapter) if models.adapter else None
        self.suite = Suite(folder, self.mllm)

    def __call__(self, job: Job) -> Done:
        if job.quality is None:
            return self._ask(self.mllm.views(list(self.pictures.values())), None)
        levels = self.maps[job.way.removesuffix(ADAPTED)]
        files: list[bytes] = []
        for names in portions(self.pictures):
            chosen = None if levels is None else levels[len(files) : len(files) + len(names)]
            files += self.codec.encode([self.pictures[name] for name in names], job.quality, chosen)
        coder = Coder(self.codec)
        decoded = list(coder.decode(dict(zip(self.pictures, files, strict=True))).values())
        if job.way.endswith(ADAPTED):
            views = self.mllm.decoded_views(decoded, self.adapter)
        else:
            views = self.mllm.views([one.image for one in decoded])
        sizes = {
            "bits": [8 * len(content) for content in files],
            "header_bits": [8 * container.header_bytes(content) for content in files],
        }
        return self._ask(views, sizes)

    def _ask(self, views: list, sizes: dict[str, list[int]] | None) -> Done:
        asked = self.suite.run(dict(zip(self.pictures, views, strict=True))).asked
        return Done(*question_rows(asked), sizes)


def shares(maps: Mapping[str, Levels]) -> dict[str, dict[str, float]]:
    """Of every kind of maps, the share of cells at each level."""
    found = {}
    for way, levels in maps.items():
        if levels is not None:
            cells = np.concatenate([np.ravel(one) for one in levels])
            found[way] = {str(level): round(float((cells == level).mean()), 4) for level in (-1, 0, 1)}
    return found


def begun(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, config.Settings]:
    """What both commands begin with: their words, `--json` among them, and the settings, with as many threads."""
    parser.add_argument("--json", action="store_true", help="report as JSON")
    args = parser.parse_args()
    be_quiet()
    settings = config.load()
    use_threads(settings.threads)
    return args, settings


def print_json(result: dict) -> None:
    """The whole of it, for programs."""
    json.dump(result, sys.stdout, indent=2)
    print()


def print_ways(result: dict, names: Mapping[str, str]) -> None:
    """What `shares` and `Asked.against` found, under `levels` and `ways`, as tables."""
    for way, levels in result["levels"].items():
        print(f"{names[way]}: {levels['1']:.1%} of the cells raised, {levels['-1']:.1%} lowered")
    qualities = [point["quality"] for point in result["ways"][PLAIN]["curve"]]
    print(f"\n{'mean score at bits per pixel':40}" + "".join(f"{f'q{quality}':>14}" for quality in qualities))
    for way, name in names.items():
        if way in result["ways"]:
            points = result["ways"][way]["curve"]
            cells = [f"{point['scores'][MEAN]:.1f} at {point['bpp']:.3f}" for point in points]
            print(f"{name:40}" + "".join(f"{cell:>14}" for cell in cells))
    print(f"clean images {result['ways'][CLEAN.method]['curve'][0]['scores'][MEAN]:.1f}")
    print("\nBD-rate of the mean score against the codec alone, 95 % interval over images")
    for way, name in names.items():
        if way != PLAIN and way in result["ways"]:
            print(f"{name:40}{rate_of(result['ways'][way])}")


def rate_of(entry: dict) -> str:
    """The BD-rate of the mean score of an entry of a summary, with its interval."""
    rate = entry["bd_rate"][MEAN]
    ends = "no interval" if rate["low"] is None else f"{rate['low']:+.1f} to {rate['high']:+.1f}"
    value = "not defined" if rate["value"] is None else f"{rate['value']:+.1f} %"
    return f"{value:>14}   {ends}"
