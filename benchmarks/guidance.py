"""What guidance and adapter are each worth in bits at equal score, and whether the map is what does it.

    cotam bench guidance [--json]         or: python benchmarks/guidance.py --images 200

The codec alone is the anchor. Beside it stand the codec guided by the tower (paper, section 3.2), by the same maps with
their cells in random order, and by maps drawn from the scene graph, which says what a perfect attention would give; and
the first two with the adapter of the last run. Images and questions are those of the benchmarks (components/evaluation)
but from a seed other than params.yaml's: what is tried out here has not seen the pipeline's images.
"""

import argparse
import importlib
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from components import config
from components.codec import container
from components.codec.guidance import guide, quantize
from components.environment import be_quiet, use_threads
from components.evaluation.benchmarks import benchmark_scenes
from components.evaluation.coding import Coder, portions
from components.evaluation.pictures import Pictures, benchmark_pictures
from components.evaluation.scores import MEAN, question_rows
from components.evaluation.step_benchmarks import write_benchmarks
from components.evaluation.streams import CLEAN
from components.evaluation.summary import summarise_pair
from components.paths import CHECKOUT
from components.progress import track
from components.scenes.graph import Scene
from components.scenes.labels import attention_shares, patch_labels
from components.workers import run_jobs

SEED = 50  # of the images; that of params.yaml is another
PLAIN = "plain"
ADAPTED = "+adapter"
WAYS = {
    PLAIN: "codec alone",
    "guided": "guided by the tower",
    "shuffled": "the same maps, cells in random order",
    "graph": "guided by the scene graph",
    "plain+adapter": "codec alone, with adapter",
    "guided+adapter": "guided by the tower, with adapter",
}
Levels = np.ndarray | None


@dataclass(frozen=True)
class Job:
    """One way at one quality; the clean images have neither."""

    way: str
    quality: int | None


def level_maps(pictures: Pictures, scenes: Sequence[Scene], settings: config.Settings) -> dict[str, Levels]:
    """Map source -> int8 (images, grid, grid), or None for no map."""
    from components.vision import load_tower

    guidance = settings.guidance
    tower = load_tower(guidance.tower)
    of_portions = [[pictures[name] for name in names] for names in portions(pictures)]
    guided = [guide(tower, portion, guidance.grid, guidance.k, guidance.layers) for portion in of_portions]
    guided_BGG = np.concatenate(guided)
    shuffled_BGG = np.random.default_rng(SEED).permuted(guided_BGG.reshape(len(guided_BGG), -1), axis=1)
    labels_BNk = np.stack([patch_labels(scene, tower.grid[0]) for scene in scenes])
    shares_BHW = torch.from_numpy(attention_shares(labels_BNk)).unflatten(1, tower.grid)
    return {
        PLAIN: None,
        "guided": guided_BGG,
        "shuffled": shuffled_BGG.reshape(guided_BGG.shape),
        "graph": quantize(shares_BHW, guidance.grid, guidance.k),
    }


def measure(images: int, settings: config.Settings, adapter: Path | None) -> dict:
    """Everything that is reported: levels of the maps, and per way its rates, scores and BD-rate.

    Args:
        images: how many to draw.
        settings: models, guidance and qualities.
        adapter: a folder, or None to leave out the ways with an adapter.
    """
    side = settings.scenes.size
    scenes = list(benchmark_scenes(images, "bench", SEED, side))
    ways = [way for way in WAYS if adapter or not way.endswith(ADAPTED)]
    jobs = [Job(CLEAN.method, None), *(Job(way, quality) for quality in settings.evaluation.qualities for way in ways)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_benchmarks(folder, images, "bench", SEED, side)
        pictures = benchmark_pictures(folder)
        maps = level_maps(pictures, scenes, settings)
        importlib.import_module("components.evaluation.suite")  # lmms-eval: slow, and so before the processes part
        start = partial(Asker, folder, pictures, maps, settings, adapter)
        done = dict(track(run_jobs(jobs, start, settings.threads), "coding and asking", len(jobs)))
    files: dict[str, dict] = {}
    scores: dict[str, dict] = {CLEAN.method: {CLEAN.quality: done[jobs[0]].scores}}
    for job in jobs[1:]:
        files.setdefault(job.way, {})[str(job.quality)] = done[job].files
        scores.setdefault(job.way, {})[str(job.quality)] = done[job].scores
    rates = {"images": list(pictures), "pixels": [picture[..., 0].size for picture in pictures.values()]}
    scored = {"questions": done[jobs[0]].questions, "scores": scores}
    summary = summarise_pair(
        PLAIN,
        {"styles": {"bench": rates | {"methods": files}}},
        {"styles": {"bench": scored}},
        settings.evaluation.bootstrap,
        settings.seed,
    )
    shares = {
        way: {str(level): round(float((levels == level).mean()), 4) for level in (-1, 0, 1)}
        for way, levels in maps.items()
        if levels is not None
    }
    return {"images": images, "adapter": str(adapter) if adapter else None, "levels": shares, "ways": summary}


@dataclass(frozen=True)
class Done:
    """What a job found: the questions, their scores, and the sizes of its files (None for clean images)."""

    questions: list[dict]
    scores: list[float]
    files: dict[str, list[int]] | None


class Asker:
    """The models of one process, and what it does with a job: code, decode, ask."""

    def __init__(
        self,
        folder: Path,
        pictures: Pictures,
        maps: Mapping[str, Levels],
        settings: config.Settings,
        adapter: Path | None,
    ):
        from components.adapter import LatentAdapter
        from components.codec import Codec
        from components.evaluation.suite import Suite
        from components.mllm import load_mllm

        self.pictures, self.maps = pictures, maps
        self.codec = Codec.from_pretrained(settings.codec[settings.codecs[0]].weights)
        self.mllm = load_mllm(settings.mllm[settings.mllms[0]].weights)
        self.adapter = LatentAdapter.load(adapter) if adapter else None
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


def _print(result: dict) -> None:
    for way, shares in result["levels"].items():
        print(f"{WAYS[way]}: {shares['1']:.1%} of the cells raised, {shares['-1']:.1%} lowered")
    qualities = [point["quality"] for point in result["ways"][PLAIN]["curve"]]
    print(f"\n{'mean score at bits per pixel':40}" + "".join(f"{f'q{quality}':>14}" for quality in qualities))
    for way, name in WAYS.items():
        if way in result["ways"]:
            points = result["ways"][way]["curve"]
            cells = [f"{point['scores'][MEAN]:.1f} at {point['bpp']:.3f}" for point in points]
            print(f"{name:40}" + "".join(f"{cell:>14}" for cell in cells))
    print(f"clean images {result['ways'][CLEAN.method]['curve'][0]['scores'][MEAN]:.1f}")
    print("\nBD-rate of the mean score against the codec alone, 95 % interval over images")
    for way, name in WAYS.items():
        if way != PLAIN and way in result["ways"]:
            rate = result["ways"][way]["bd_rate"][MEAN]
            ends = "no interval" if rate["low"] is None else f"{rate['low']:+.1f} to {rate['high']:+.1f}"
            value = "not defined" if rate["value"] is None else f"{rate['value']:+.1f} %"
            print(f"{name:40}{value:>14}   {ends}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--adapter", type=Path, help="a folder (default: the last run's, where there is one)")
    parser.add_argument("--json", action="store_true", help="report as JSON")
    args = parser.parse_args()
    be_quiet()
    settings = config.load()
    use_threads(settings.threads)
    trained = CHECKOUT.joint(settings.codecs[0], settings.mllms[0]) / "adapter"
    result = measure(args.images, settings, args.adapter or (trained if trained.is_dir() else None))
    if args.json:
        json.dump(result, sys.stdout, indent=2)
        print()
    else:
        _print(result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
