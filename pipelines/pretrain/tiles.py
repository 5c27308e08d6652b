"""What a tower is shown of scenes of more detail, with labels: their tiles, and the whole made as small as a tile."""

from dataclasses import replace

import numpy as np
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tvF

from components.scenes import Scene
from components.scenes.labels import image_labels, patch_labels

GRID = 8
"""Rows and columns of a view's patches."""
READABLE = 0.6
"""Share of a text's width and height that a tile must show for the text to be in it."""


def cut(images_BHW3: np.ndarray, detail: int) -> np.ndarray:
    """Scenes -> their tiles, row by row, and the whole behind them: uint8 (B, V, h, h, 3); an ordinary one is whole."""
    if detail == 1:
        return images_BHW3[:, None]
    side = images_BHW3.shape[1] // detail
    count = len(images_BHW3)
    tiles = images_BHW3.reshape(count, detail, side, detail, side, 3).transpose(0, 1, 3, 2, 4, 5)
    small = tvF.resize(
        torch.from_numpy(np.ascontiguousarray(images_BHW3.transpose(0, 3, 1, 2))),
        [side, side],
        interpolation=InterpolationMode.BICUBIC,
        antialias=True,
    )
    whole = small.numpy().transpose(0, 2, 3, 1)
    return np.concatenate([tiles.reshape(count, -1, side, side, 3), whole[:, None]], 1)


def labels(scene: Scene, grid: int = GRID) -> tuple[np.ndarray, np.ndarray]:
    """Of what `cut` gives of a scene: labels of patches, int64 (V, grid * grid, k), and of the images, (V, m)."""
    parts = [scene]
    if scene.detail > 1:
        parts = [tile(scene, row, column) for row in range(scene.detail) for column in range(scene.detail)] + parts
    return np.stack([patch_labels(part, grid) for part in parts]), np.stack([image_labels(part) for part in parts])


def tile(scene: Scene, row: int, column: int) -> Scene:
    """The graph of one tile: the objects whose centres are in it, and the text where it can be read in it."""
    side = scene.side // scene.detail
    top, left = row * side, column * side
    objects = tuple(
        replace(obj, cx=obj.cx - left, cy=obj.cy - top)
        for obj in scene.objects
        if left <= obj.cx < left + side and top <= obj.cy < top + side
    )
    text = scene.text
    if text:
        shown = replace(
            text,
            left=max(text.left - left, 0.0),
            top=max(text.top - top, 0.0),
            right=min(text.right - left, float(side)),
            bottom=min(text.bottom - top, float(side)),
        )
        wide = shown.right - shown.left >= READABLE * (text.right - text.left)
        high = shown.bottom - shown.top >= READABLE * (text.bottom - text.top)
        text = shown if wide and high else None
    return replace(scene, side=side, detail=1, objects=objects, text=text)
