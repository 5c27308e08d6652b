"""Draw the scenes that an adapter learns from: PNG files, and the scene graph of each as a line of graph.jsonl."""

import json
from collections.abc import Callable, Sequence

from PIL import Image

from components.progress import track
from components.scenes.graph import sample_scene
from components.scenes.render import render
from components.step_inputs import StepInputs
from components.workers import run_jobs

PORTION = 100  # scenes of one job


def run(inputs: StepInputs) -> None:
    """Write `scenes.images` scenes of the train split in train style; their seeds follow from `seed`."""
    count = inputs.params.scenes.images
    portions = [range(start, min(count, start + PORTION)) for start in range(0, count, PORTION)]
    drawn = run_jobs(portions, lambda: _drawer(inputs), inputs.params.threads)
    lines = dict(track(drawn, "rendering scenes", len(portions)))
    with (inputs.out / "graph.jsonl").open("w") as graphs:
        for portion in portions:
            graphs.writelines(lines[portion])


def _drawer(inputs: StepInputs) -> Callable[[Sequence[int]], list[str]]:
    first, side = inputs.params.seed * 1_000_000, inputs.params.scenes.size

    def draw(portion: Sequence[int]) -> list[str]:
        """Write the portion's pictures; their lines of graph.jsonl."""
        lines = []
        for index in portion:
            scene = sample_scene(first + index, "train", "train", side)
            name = f"{index:06d}.png"
            # Compression level 1: half the time of the default, and shards are not meant to be small.
            Image.fromarray(render(scene)).save(inputs.out / name, compress_level=1)
            lines.append(json.dumps({"image": name, **scene.to_json()}) + "\n")
        return lines

    return draw
