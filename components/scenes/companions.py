"""The scene graphs of pictures in shards: `step_render` writes them beside the pictures, and shards keep the names."""

import json
import tarfile
from pathlib import Path

from components.data.manifest import read_manifest
from components.data.reader import ShardReader
from components.errors import CotamError
from components.scenes.graph import Obj, Scene, Text


def scenes_of(shards: Path, root: Path) -> list[Scene] | None:
    """The scene of every picture in `shards`, in the pictures' order.

    Args:
        shards: what the step `shard` wrote.
        root: what the source that the shards' manifest names is relative to.

    Returns:
        None where the source is no folder of drawn scenes: photographs have no graph.

    Raises:
        CotamError: some of the pictures have a scene and others do not, or one cannot be read.
    """
    manifest = read_manifest(shards)
    source = root / manifest["source"]
    graphs = {}
    for tar in sorted(source.glob("*.tar")) if source.is_dir() else ():
        graphs |= _graphs(tar)
    if not graphs:
        return None
    names = [Path(name).with_suffix("").as_posix() for name in _names(shards)]
    known = [name in graphs for name in names]
    if not any(known):
        return None
    if not all(known):
        raise CotamError(f"{source} lacks the scenes of some pictures in {shards}; run `dvc repro shard`.")
    return [graphs[name] for name in names]


def scene_from_json(graph: dict) -> Scene:
    """What `Scene.to_json` gave.

    Raises:
        TypeError, KeyError: it is something else.
    """
    objects = tuple(Obj(**one) for one in graph["objects"])
    text = graph["text"] and Text(**graph["text"])
    return Scene(**(graph | {"objects": objects, "text": text}))


def _names(shards: Path) -> list[str]:
    """What each picture was called in the source."""
    reader, names = ShardReader(shards), []
    for number in range(len(reader.manifest["shards"])):
        with reader.shard(number) as path, tarfile.open(path) as tar:
            names += [json.load(tar.extractfile(member))["name"] for member in tar if member.name.endswith(".json")]
    if len(names) != len(reader):
        raise CotamError(f"{shards} does not say what all of its pictures were called; shard the images again.")
    return names


def _graphs(path: Path) -> dict[str, Scene]:
    """Name of a picture, without its suffix, as shards spell it -> its scene."""
    found = {}
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                if not member.name.endswith(".json"):
                    continue
                graph = json.load(tar.extractfile(member))
                if isinstance(graph, dict) and "background_seed" in graph:
                    found[f"{path.name}/{Path(member.name).with_suffix('').as_posix()}"] = scene_from_json(graph)
    except (OSError, ValueError, TypeError, KeyError, tarfile.TarError) as error:
        raise CotamError(f"{path} holds scenes that cannot be read ({error}); draw them again.") from None
    return found
