"""Which parts of an image deserve bits: shallow CLIP attention, quantized to three levels (paper, 3.2 and A.6).

The encoder asks a frozen CLIP where its class token looks in its first layers. A region that draws clearly more
attention than the image's mean is coded one quality better, one that draws clearly less, one quality worse. The MLLM is
not consulted: one stream serves whatever model reads it.

A large image seen as one tile is seen coarsely, and seen tile by tile it has no whole. So its guidance is hierarchical
(paper, section 3.4): the maps of its tiles, and the map of the whole upsampled to theirs, summed, then quantized.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from components.codec.container import MAXIMUM_CELLS

LAYERS = (0, 1, 2)
K = 0.75
TILES_AT_ONCE = 32

Scope = Literal["global", "local", "hierarchical"]
"""What guides a large image: its whole, its tiles, or both."""


class Tower(Protocol):
    """A vision tower that guides (`components.vision.load_tower`)."""

    geometry: object

    def attention_map(self, pixels_B3HW: Tensor, layers: Sequence[int]) -> Tensor: ...


def quantize(
    attention_BHW: Tensor, grid: int | tuple[int, int], k: float = K, levels: int = 3
) -> NDArray[np.int8]:
    """Attention maps -> levels (B, *grid): +1 above mu + k sigma, -1 below mu - k sigma, else 0.

    With five levels +2 stands above mu + 2 k sigma and -2 below mu - 2 k sigma; with seven there are +3 and -3 as well.

    Mean and (population) deviation are each image's own, over the pooled cells.
    """
    cells_BGG = torch.nn.functional.adaptive_avg_pool2d(attention_BHW[:, None].double(), grid)[:, 0]
    mean = cells_BGG.mean((1, 2), keepdim=True)
    deviation = cells_BGG.std((1, 2), correction=0, keepdim=True)
    found_BGG = torch.zeros_like(cells_BGG, dtype=torch.int8)
    for step in range(1, levels // 2 + 1):
        far = step * k * deviation
        found_BGG += (cells_BGG > mean + far).to(torch.int8) - (cells_BGG < mean - far).to(torch.int8)
    return found_BGG.cpu().numpy()


@torch.inference_mode()
def guide(
    tower: Tower,
    images: Sequence[Image.Image | NDArray[np.uint8]],
    grid: int,
    k: float = K,
    layers: Sequence[int] = LAYERS,
    scope: Scope = "hierarchical",
    levels: int = 3,
) -> list[NDArray[np.int8]]:
    """Level maps of images of any size; those that are one tile have the same map in every scope.

    Args:
        tower: a frozen CLIP.
        images: PIL images or uint8 arrays (H, W, 3).
        grid: cells per side of a tile; with `global`, of the image. They lie over all of it, whatever its shape.
        k: width of the middle level, in deviations.
        layers: of the tower, averaged.
        scope: what guides an image of several tiles.
        levels: how many there are, 3, 5 or 7.

    Returns:
        For every image its levels, int8 (rows, columns), -1 to 1 (with five or seven -2 to 2, -3 to 3): `grid` cells
        for each side of its tiles (`tiles_of`), or of the whole.
    """
    side = tower.geometry.output_size
    cuts = [(1, 1) if scope == "global" else tiles_of(_size(image), side, grid) for image in images]
    maps: list[NDArray[np.int8] | None] = [None] * len(images)
    whole = [index for index, cut in enumerate(cuts) if cut == (1, 1)]
    if whole:
        found = quantize(_maps(tower, [images[index] for index in whole], layers), grid, k, levels)
        for index, levels_GG in zip(whole, found, strict=True):
            maps[index] = levels_GG
    for index, (rows, columns) in enumerate(cuts):
        if (rows, columns) != (1, 1):
            attention_1HW = _attention(tower, images[index], (rows, columns), layers, whole=scope == "hierarchical")
            maps[index] = quantize(attention_1HW, (grid * rows, grid * columns), k, levels)[0]
    return maps


def tiles_of(image_size: tuple[int, int], tile_size: tuple[int, int], grid: int) -> tuple[int, int]:
    """How many tiles an image has: rows and columns of about the tower's size, as many as a map can have cells for.

    Args:
        image_size, tile_size: height and width.
        grid: cells per side of a tile.
    """
    most = max(1, MAXIMUM_CELLS // grid)
    rows, columns = (
        min(most, max(1, round(extent / side))) for extent, side in zip(image_size, tile_size, strict=True)
    )
    return rows, columns


def _attention(
    tower: Tower,
    image: Image.Image | NDArray[np.uint8],
    cut: tuple[int, int],
    layers: Sequence[int],
    whole: bool,
) -> Tensor:
    """The tiles' maps side by side, (1, rows * gh, columns * gw), and where asked the whole's, upsampled, on top."""
    image = (image if isinstance(image, Image.Image) else Image.fromarray(image)).convert("RGB")
    tiles = [image.crop(box) for box in _boxes(image.size, cut)]
    maps_Thw = torch.cat(
        [
            _maps(tower, tiles[start : start + TILES_AT_ONCE], layers)
            for start in range(0, len(tiles), TILES_AT_ONCE)
        ]
    )
    # Attention is a share of what CLS has to give, so that both maps have about one sum per tile.
    local_1HW = maps_Thw.unflatten(0, cut).permute(0, 2, 1, 3).flatten(2, 3).flatten(0, 1)[None]
    if not whole:
        return local_1HW
    global_11hw = _maps(tower, [image], layers)[:, None]
    upsampled_11HW = torch.nn.functional.interpolate(global_11hw, local_1HW.shape[1:], mode="bilinear")
    return local_1HW + upsampled_11HW[:, 0]


def _boxes(size: tuple[int, int], cut: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Left, top, right and bottom of equal tiles, row by row; `size` is width and height, `cut` rows and columns."""
    (width, height), (rows, columns) = size, cut
    for row in range(rows):
        for column in range(columns):
            top, bottom = (height * edge // rows for edge in (row, row + 1))
            left, right = (width * edge // columns for edge in (column, column + 1))
            yield left, top, right, bottom


def _maps(tower: Tower, images: Sequence[Image.Image | NDArray[np.uint8]], layers: Sequence[int]) -> Tensor:
    """What draws attention in each, seen as one tile: (B, gh, gw)."""
    height, width = tower.geometry.output_size
    tiles = [_as_tile(image, (width, height)) for image in images]
    return tower.attention_map(tower.geometry.pixels(tiles), layers)


def _size(image: Image.Image | NDArray[np.uint8]) -> tuple[int, int]:
    return image.size[::-1] if isinstance(image, Image.Image) else image.shape[:2]


def _as_tile(image: Image.Image | NDArray[np.uint8], size: tuple[int, int]) -> Image.Image:
    """Stretched to the tower's size, so that its map covers all of the image."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    return image if image.size == size else image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
