"""What stands in each patch: targets of the dense loss that teaches a small tower to see.

For every patch of a grid: the shape, colour, texture and size of the object whose centre it holds, the shape and colour
that cover most of it, and the text that crosses it. Class 0 always means none.
"""

import numpy as np

from components.scenes.graph import Scene, quarter
from components.scenes.world import COLOURS, DIGITS, KINDS, MAX_COUNT, QUARTERS, SHAPES, SIZES, TEXTURES, TINTS, WORDS

TEXTS = DIGITS + WORDS
PATCH_CLASSES = {
    "shape": len(SHAPES) + 1,
    "colour": len(COLOURS) + 1,
    "texture": len(TEXTURES) + 1,
    "size": len(SIZES) + 1,
    "covering_shape": len(SHAPES) + 1,
    "covering_colour": len(COLOURS) + 1,
    "text": len(TEXTS) + 1,
}
IMAGE_CLASSES = {
    "kind": len(KINDS),
    "tint": len(TINTS),
    "text": len(TEXTS) + 1,
    "largest": len(QUARTERS) + 1,
    **{f"count_{shape}": MAX_COUNT + 1 for shape in SHAPES},
    **{f"count_{colour}": MAX_COUNT + 1 for colour in COLOURS},
}


def patch_labels(scene: Scene, grid: int) -> np.ndarray:
    """Labels of a grid x grid of patches: int64 (grid * grid, len(PATCH_CLASSES)), columns in that order."""
    labels = np.zeros((grid, grid, len(PATCH_CLASSES)), np.int64)
    step = scene.side / grid
    for obj in scene.objects:
        named = (SHAPES.index(obj.shape) + 1, COLOURS.index(obj.colour) + 1)
        reach = obj.diameter / 2
        rows, columns = (
            slice(max(0, int((centre - 0.6 * reach) // step)), min(grid, int((centre + 0.6 * reach) // step) + 1))
            for centre in (obj.cy, obj.cx)
        )
        labels[rows, columns, 4:6] = named
        row, column = min(grid - 1, int(obj.cy // step)), min(grid - 1, int(obj.cx // step))
        labels[row, column, :4] = (*named, TEXTURES.index(obj.texture) + 1, SIZES.index(obj.size) + 1)
    if scene.text:
        box = scene.text
        inset = 0.2 * step
        rows = slice(int((box.top + inset) // step), min(grid, int((box.bottom - inset) // step) + 1))
        columns = slice(int((box.left + inset) // step), min(grid, int((box.right - inset) // step) + 1))
        labels[rows, columns, 6] = TEXTS.index(box.value) + 1
    return labels.reshape(grid * grid, -1)


def attention_shares(labels):
    """Where a glance should fall, from patch labels: an equal share for each patch that holds an object's centre.

    A text, legible at low rates, has half a share for all its patches together.

    Args:
        labels: array or tensor, (..., N, len(PATCH_CLASSES)).

    Returns:
        float of the same kind, (..., N); sums to one over the patches where anything is named, else to zero.
    """
    names = list(PATCH_CLASSES)
    objects, text = ((labels[..., names.index(name)] > 0) * 1.0 for name in ("shape", "text"))
    shares = objects + 0.5 * text / text.sum(-1, keepdims=True).clip(min=1)
    return shares / shares.sum(-1, keepdims=True).clip(min=0.5)


def image_labels(scene: Scene) -> np.ndarray:
    """Labels of the whole image: int64 (len(IMAGE_CLASSES),), in that order."""
    counts = [sum(obj.shape == shape for obj in scene.objects) for shape in SHAPES]
    counts += [sum(obj.colour == colour for obj in scene.objects) for colour in COLOURS]
    labels = [
        KINDS.index(scene.kind),
        TINTS.index(scene.tint),
        TEXTS.index(scene.text.value) + 1 if scene.text else 0,
        QUARTERS.index(quarter(scene.largest, scene.side)) + 1 if scene.largest else 0,
        *(min(count, MAX_COUNT) for count in counts),
    ]
    return np.asarray(labels, np.int64)
