"""What guidance and adapter are each worth in bits at equal score, and whether the map is what does it.

    cotam bench guidance [--json]         or: python benchmarks/guidance.py --images 200

The codec alone is the anchor. Beside it stand the codec guided by the tower (paper, section 3.2), by the same maps with
their cells in random order, and by maps drawn from the scene graph, which says what a perfect attention would give; and
the first two with the adapter of the last run. Images and questions are those of the benchmarks (components/evaluation)
but from a seed other than params.yaml's: what is tried out here has not seen the pipeline's images.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.ways import ADAPTED, PLAIN, Levels, Models, begun, code_and_ask, print_json, print_ways, shares
from components import config
from components.codec.guidance import guide, quantize
from components.evaluation.benchmarks import benchmark_scenes
from components.evaluation.coding import portions
from components.evaluation.pictures import Pictures, benchmark_pictures
from components.evaluation.step_benchmarks import write_benchmarks
from components.paths import CHECKOUT
from components.scenes.graph import Scene
from components.scenes.labels import attention_shares, patch_labels

SEED = 50  # of the images; that of params.yaml is another
WAYS = {
    PLAIN: "codec alone",
    "guided": "guided by the tower",
    "shuffled": "the same maps, cells in random order",
    "graph": "guided by the scene graph",
    "plain+adapter": "codec alone, with adapter",
    "guided+adapter": "guided by the tower, with adapter",
}


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
    codec, mllm = settings.codec[settings.codecs[0]].weights, settings.mllm[settings.mllms[0]].weights
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_benchmarks(folder, images, "bench", SEED, side)
        pictures = benchmark_pictures(folder)
        maps = level_maps(pictures, scenes, settings)
        asked = code_and_ask(folder, pictures, maps, ways, Models(codec, mllm, adapter), settings)
    found = {"images": images, "adapter": str(adapter) if adapter else None, "levels": shares(maps)}
    return found | {"ways": asked.against(PLAIN, settings)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--adapter", type=Path, help="a folder (default: the last run's, where there is one)")
    args, settings = begun(parser)
    trained = CHECKOUT.joint(settings.codecs[0], settings.mllms[0]) / "adapter"
    result = measure(args.images, settings, args.adapter or (trained if trained.is_dir() else None))
    if args.json:
        print_json(result)
    else:
        print_ways(result, WAYS)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
