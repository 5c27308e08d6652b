"""Which parts of an image deserve bits: shallow CLIP attention, quantized to three levels (paper, 3.2 and A.6).

The encoder asks a frozen CLIP where its class token looks in its first layers. A region that draws clearly more
attention than the image's mean is coded one quality better, one that draws clearly less, one quality worse. The MLLM is
not consulted: one stream serves whatever model reads it.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

LAYERS = (0, 1, 2)
K = 0.75


class Tower(Protocol):
    """A vision tower that guides (`components.vision.load_tower`)."""

    geometry: object

    def cls_attention(self, pixels_B3HW: Tensor, layers: Sequence[int]) -> Tensor: ...


def quantize(attention_BHW: Tensor, grid: int, k: float = K, levels: int = 3) -> NDArray[np.int8]:
    """Attention maps -> levels (B, grid, grid): +1 above mu + k sigma, -1 below mu - k sigma, else 0.

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
    levels: int = 3,
) -> NDArray[np.int8]:
    """Level maps of images that are each seen as one tile, whatever their shape.

    Args:
        tower: a frozen CLIP.
        images: PIL images or uint8 arrays (H, W, 3).
        grid: cells per side; the cells lie over the whole image.
        k: width of the middle level, in deviations.
        layers: of the tower, averaged.
        levels: how many there are, 3, 5 or 7.

    Returns:
        int8 (B, grid, grid) in {-1, 0, 1}; with more levels up to 3 from zero.
    """
    height, width = tower.geometry.output_size
    tiles = [_as_tile(image, (width, height)) for image in images]
    return quantize(tower.cls_attention(tower.geometry.pixels(tiles), layers), grid, k, levels)


def _as_tile(image: Image.Image | NDArray[np.uint8], size: tuple[int, int]) -> Image.Image:
    """Stretched to the tower's size, so that its map covers all of the image."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    return image if image.size == size else image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
