"""What a tower is shown of scenes of more detail, with labels: their tiles, and the whole made as small as a tile."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tvF

from components.scenes import Scene
from components.scenes.labels import PATCH_CLASSES, image_labels, patch_labels

GRID = 8
"""Rows and columns of a view's patches."""
IGNORED = -100
"""A label that no loss counts; cross_entropy's own choice."""
READABLE = 0.6
"""Share of a text's width and height that a tile must show for the text to be in it."""


def cut(images_BHW3: Tensor, detail: int) -> Tensor:
    """Scenes -> their tiles, row by row, and the whole behind them: uint8 (B, V, h, h, 3); an ordinary one is whole."""
    if detail == 1:
        return images_BHW3[:, None]
    side = images_BHW3.shape[1] // detail
    tiles = images_BHW3.unflatten(2, (detail, side)).unflatten(1, (detail, side)).transpose(2, 3)
    images_B3HW = images_BHW3.permute(0, 3, 1, 2).contiguous()
    whole = tvF.resize(images_B3HW, [side, side], interpolation=InterpolationMode.BICUBIC, antialias=True)
    return torch.cat([tiles.flatten(1, 2), whole.permute(0, 2, 3, 1)[:, None]], 1)


def labels(scene: Scene, grid: int = GRID) -> tuple[np.ndarray, np.ndarray]:
    """Labels of what `cut` gives of a scene.

    Patches of a tile have the labels that they have in the scene. So the half of an object whose centre is in the next
    tile is what covers these patches, and not nothing; only what a patch says of the centre that it holds stays where
    the centre is, here as anywhere. The piece of a text that cannot be read in a tile is IGNORED: it is not nothing,
    and nobody could say which text it is.

    Returns:
        Of patches, int64 (V, grid * grid, k), and of the images, (V, m).
    """
    whole, of_whole = patch_labels(scene, grid)[None], image_labels(scene)[None]
    if scene.detail == 1:
        return whole, of_whole
    detail = scene.detail
    parts = [tile(scene, row, column) for row in range(detail) for column in range(detail)]
    fine = patch_labels(scene, detail * grid).reshape(detail, grid, detail, grid, -1).swapaxes(1, 2)
    patches = fine.reshape(detail * detail, grid * grid, -1)
    text = list(PATCH_CLASSES).index("text")
    for part, of_part in zip(parts, patches, strict=True):
        if not part.text:
            of_part[of_part[:, text] > 0, text] = IGNORED
    return np.concatenate([patches, whole]), np.concatenate([[image_labels(part) for part in parts], of_whole])


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
