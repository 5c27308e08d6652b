"""Labels and captions of the rendered scenes, as arrays, so that training never waits for the scene graph."""

from functools import partial
from multiprocessing import Pool
from pathlib import Path

import numpy as np

from components.scenes import sample_scene
from components.scenes.captions import caption
from components.scenes.labels import image_labels, patch_labels

GRID = 8
CAPTION_WORDS = 76


def _annotate(seed: int, split: str, style: str) -> tuple[np.ndarray, np.ndarray, str]:
    scene = sample_scene(seed, split, style)
    return patch_labels(scene, GRID), image_labels(scene), caption(scene, np.random.default_rng([3, seed]))


def annotations(cache: Path, style: str, first: int, count: int, split: str = "train", processes: int = 1) -> dict:
    """Labels of `count` scenes: `patches` int8 (count, 64, k), `image` int8 (count, m), `captions` str (count,)."""
    if not cache.exists():
        with Pool(processes) as pool:
            seeds = range(first, first + count)
            rows = pool.map(partial(_annotate, split=split, style=style), seeds, chunksize=500)
        patches, image, captions = zip(*rows, strict=True)
        partial_name = cache.with_suffix(".part.npz")
        np.savez(
            partial_name,
            patches=np.stack(patches).astype(np.int8),
            image=np.stack(image).astype(np.int8),
            captions=np.asarray(captions),
        )
        partial_name.rename(cache)
    with np.load(cache) as stored:
        return {name: stored[name] for name in stored}
