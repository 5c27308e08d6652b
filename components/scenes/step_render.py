"""Draw the scenes that an adapter learns from: tar files of PNG pictures, each with its scene graph (WebDataset)."""

import io
import json
import tarfile
from collections.abc import Callable, Sequence

from PIL import Image

from components.progress import track
from components.scenes.graph import sample_scene
from components.scenes.render import render
from components.step_inputs import StepInputs
from components.workers import run_jobs

PORTION = 100  # scenes of one job, and of one tar file


def run(inputs: StepInputs) -> None:
    """Write `scenes.images` scenes of the train split in train style; their seeds follow from `seed`."""
    count = inputs.params.scenes.images
    portions = [range(start, min(count, start + PORTION)) for start in range(0, count, PORTION)]
    drawn = run_jobs(portions, lambda: _drawer(inputs), inputs.params.threads)
    for _ in track(drawn, f"rendering scenes, {PORTION} at a time", len(portions)):
        pass


def _drawer(inputs: StepInputs) -> Callable[[Sequence[int]], None]:
    first, side = inputs.params.seed * 1_000_000, inputs.params.scenes.size

    def draw(portion: Sequence[int]) -> None:
        # Not a file a picture: whoever hashes and copies the results would be longer at it than this is at drawing.
        with tarfile.open(inputs.out / f"{portion[0] // PORTION:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for index in portion:
                scene = sample_scene(first + index, "train", "train", side)
                picture = io.BytesIO()
                # Compression level 1: half the time of the default, and shards are not meant to be small.
                Image.fromarray(render(scene)).save(picture, "PNG", compress_level=1)
                _add(tar, f"{index:06d}.png", picture.getvalue())
                _add(tar, f"{index:06d}.json", json.dumps(scene.to_json()).encode())

    return draw


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # no time and no owner: the same scenes are the same bytes
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
