"""Draw the scenes that an adapter learns from: PNG files, and the scene graph of each as a line of graph.jsonl."""

import json

from PIL import Image

from components.progress import track
from components.scenes.graph import sample_scene
from components.scenes.render import render
from components.step_inputs import StepInputs


def run(inputs: StepInputs) -> None:
    """Write `scenes.images` scenes of the train split in train style; their seeds follow from `seed`."""
    count, side = inputs.params.scenes.images, inputs.params.scenes.size
    first = inputs.params.seed * 1_000_000
    with (inputs.out / "graph.jsonl").open("w") as graphs:
        for index in track(range(count), "rendering scenes"):
            scene = sample_scene(first + index, "train", "train", side)
            name = f"{index:06d}.png"
            # Compression level 1: half the time of the default, and shards are not meant to be small.
            Image.fromarray(render(scene)).save(inputs.out / name, compress_level=1)
            graphs.write(json.dumps({"image": name, **scene.to_json()}) + "\n")
