"""The step that gives training its shards: packs a folder of images, or takes shards that are there or on S3."""

from pathlib import Path
from typing import TYPE_CHECKING

from components.data.manifest import DIGESTS, INDEX, LOCATION, MANIFEST, is_link, is_shards
from components.data.parts import take
from components.data.reader import ShardReader
from components.data.sharding import shard_folder
from components.errors import CotamError
from components.progress import track

if TYPE_CHECKING:
    from components.step_inputs import StepInputs


def run(inputs: "StepInputs") -> None:
    """Write the shards of `data.source`: a folder of images, or one that `cotam shard` wrote."""
    data = inputs.params.data
    if "://" in data.source:
        # DVC would ask the network before every run; a local manifest pins what the shards hold.
        raise CotamError(
            f"data.source is {data.source}, but must be a folder; run `cotam shard {data.source} -o data/my-images` "
            "(with --link if shards lie there) and set data.source to data/my-images."
        )
    source = inputs.paths.root / Path(data.source).expanduser()
    if is_shards(source):
        images = _adopt(source, inputs.out)
    else:
        images = shard_folder(
            source,
            inputs.out,
            seed=inputs.params.seed,
            shard_images=data.shard_images,
            minimum_side=data.minimum_side,
            maximum_pixels=data.maximum_pixels,
            work=inputs.work / "sharding",
            name=data.source,  # the same in every checkout
        )["images"]
    inputs.log.metric("images", images)


def _adopt(source: Path, out: Path) -> int:
    """Put checked shards into `out` without packing anything again; return the number of images."""
    reader = ShardReader(source)
    if is_link(source):  # what it stands for is checked as it is read
        names = [MANIFEST, INDEX, LOCATION, DIGESTS]
    else:
        reader.verify()
        names = [MANIFEST, INDEX, *(shard["file"] for shard in reader.manifest["shards"])]
    for name in track(names, "Taking shards"):
        take((source / name).resolve(), out / name)  # DVC may have checked it out as a link into its cache
    return len(reader)
