"""Draw the images of the benchmarks and write their questions: `bench/` and, with half as many images, `train/`.

And, where the settings want videos, `clips/`.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from components.evaluation.benchmarks import BENCHMARKS, STYLES, Asker, benchmark_scenes
from components.evaluation.clip_benchmark import write_clips
from components.evaluation.streams import CLIPS
from components.files import atomic_write
from components.progress import track
from components.scenes import render
from components.step_inputs import StepInputs


def run(inputs: StepInputs) -> None:
    """Write `evaluation.images` images in the style of the benchmarks, and half of that in the style of training.

    The frames of `evaluation.clips` videos have the size of ordinary scenes, whatever the images' `detail`.
    """
    count, detail, seed = inputs.params.evaluation.images, inputs.params.evaluation.detail, inputs.params.seed
    side = inputs.params.scenes.size * detail
    write_benchmarks(inputs.out / "bench", count, "bench", seed, side, detail)
    write_benchmarks(inputs.out / "train", (count + 1) // 2, "train", seed, side, detail)
    if inputs.params.evaluation.clips:
        write_clips(inputs.out / CLIPS, inputs.params.evaluation.clips, "bench", seed, inputs.params.scenes.size)


def write_benchmarks(folder: Path, images: int, style: str, seed: int, side: int, detail: int = 1) -> None:
    """Write `images/NNNNNN.png` and one `.jsonl` per benchmark, a pure function of the other arguments."""
    (folder / "images").mkdir(parents=True)
    askers = [
        Asker(name, np.random.default_rng([seed, STYLES.index(style), number]))
        for number, name in enumerate(BENCHMARKS)
    ]
    lines: dict[str, list[str]] = {name: [] for name in BENCHMARKS}
    scenes = benchmark_scenes(images, style, seed, side, detail)
    for number, scene in enumerate(track(scenes, f"drawing benchmark images, {style} style", images)):
        name = f"{number:06d}"
        Image.fromarray(render(scene)).save(folder / "images" / f"{name}.png")
        for asker in askers:
            lines[asker.benchmark] += [json.dumps(document) for document in asker.documents(name, scene)]
    for benchmark, documents in lines.items():
        atomic_write(folder / f"{benchmark}.jsonl", "\n".join(documents) + "\n")
