"""Where in an image the bits of a file go: a guided file beside an unguided one of about its size (paper, Fig. 16)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from components.codec.config import STRIDE

if TYPE_CHECKING:
    from components.codec import Codec


@dataclass(frozen=True)
class Allocation:
    """Bits of every latent position of one image, (h, w) float, with a map and without.

    Attributes:
        levels_hw: quality with the map, relative to its base quality.
        plain_hw, guided_hw: bits without and with the map.
        plain_bytes, guided_bytes: sizes of the two files.
    """

    levels_hw: NDArray[np.int64]
    plain_hw: NDArray[np.float64]
    guided_hw: NDArray[np.float64]
    plain_bytes: int
    guided_bytes: int


def place_bits(codec: "Codec", image_HWC: NDArray[np.uint8], quality_map_hw: NDArray) -> NDArray[np.float64]:
    """Bits of every latent position, float (h, w): minus log2 of its likelihood, summed over channels.

    Args:
        codec: on the CPU.
        image_HWC: uint8 (H, W, 3).
        quality_map_hw: integers (h, w), the quality of every latent position.
    """
    import torch

    quality_map = torch.from_numpy(np.asarray(quality_map_hw, np.int64))[None]
    pixels = torch.tensor(image_HWC).permute(2, 0, 1)[None].float() / 255
    height, width = (STRIDE * side for side in quality_map.shape[-2:])
    pad = (0, width - pixels.shape[-1], 0, height - pixels.shape[-2])
    with torch.no_grad():
        pixels = torch.nn.functional.pad(pixels, pad, mode="replicate")
        likelihoods = codec.model(pixels, quality_map)["likelihoods"]["y"]
    return -likelihoods.double().log2().sum(1)[0].numpy()


def allocate(
    codec: "Codec", image_HWC: NDArray[np.uint8], guided: bytes, plain: Mapping[int, bytes], quality: int
) -> Allocation:
    """Compare a file with a map, of base quality `quality`, with that one of the files without that is nearest in size.

    Args:
        image_HWC: the original, uint8 (H, W, 3).
        plain: quality -> file of the same image.
    """
    quality_map_hw = np.asarray(codec.decode([guided])[0].level_map)
    nearest = min(plain, key=lambda q: abs(len(plain[q]) - len(guided)))
    return Allocation(
        levels_hw=quality_map_hw.astype(np.int64) - quality,
        plain_hw=place_bits(codec, image_HWC, np.full_like(quality_map_hw, nearest)),
        guided_hw=place_bits(codec, image_HWC, quality_map_hw),
        plain_bytes=len(plain[nearest]),
        guided_bytes=len(guided),
    )


def changes(allocations: Iterable[Allocation]) -> dict[str, float | None]:
    """Change of bits in per cent, over all images, where the map raises the quality and where it lowers it.

    Returns:
        {"raised", "lowered"}; None where no map does.
    """
    sums = {1: np.zeros(2), -1: np.zeros(2)}
    for one in allocations:
        for level, sum_2 in sums.items():
            places = np.sign(one.levels_hw) == level
            sum_2 += one.plain_hw[places].sum(), one.guided_hw[places].sum()
    change = {level: float(100 * (guided / plain - 1)) if plain else None for level, (plain, guided) in sums.items()}
    return {"raised": change[1], "lowered": change[-1]}
