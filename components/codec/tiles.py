"""Large images in tiles, so that memory is what a tile needs and not what the image would.

The transforms are convolutions: a latent position depends on the pixels around it as far as their kernels reach, and on
no others. So a tile is computed with a halo of that width, and the halo's result is thrown away. What remains is what
the whole image would have given, up to the rounding of float32 (a library may sum a larger image in another order), and
there is no seam to see.

Images of up to `WHOLE` pixels are one tile.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise, product

import torch
from torch import Tensor, nn

from components.codec.config import STRIDE

WHOLE = 1 << 20  # pixels of an image that is not cut
SIDE = 96  # latent positions of a tile, at most, along a side

Area = tuple[slice, slice]


@dataclass(frozen=True)
class Span:
    """Latent positions start .. stop along one side, and from where to where they are computed with their halo."""

    start: int
    stop: int
    first: int
    last: int


@dataclass(frozen=True)
class Tile:
    """A rectangle of the latent. Its areas are (rows, columns), in units of 1 / `factor` latent positions."""

    rows: Span
    columns: Span

    def core(self, factor: int = 1) -> Area:
        """The tile itself, in the whole."""
        return tuple(slice(factor * side.start, factor * side.stop) for side in (self.rows, self.columns))

    def around(self, factor: int = 1) -> Area:
        """The tile with its halo, in the whole."""
        return tuple(slice(factor * side.first, factor * side.last) for side in (self.rows, self.columns))

    def inner(self, factor: int = 1) -> Area:
        """The tile itself, in what was computed of it and its halo."""
        return tuple(
            slice(factor * (side.start - side.first), factor * (side.stop - side.first))
            for side in (self.rows, self.columns)
        )


def whole(height: int, width: int) -> Tile:
    """The one tile of a latent that is not cut."""
    return Tile(Span(0, height, 0, height), Span(0, width, 0, width))


def cut(size: tuple[int, int], halo: int, side: int = SIDE) -> list[Tile]:
    """Tiles that cover a latent once.

    Args:
        size: rows and columns of the latent.
        halo: latent positions to compute around each, inside the latent.
        side: positions of a tile, at most, along a side.
    """
    return [Tile(*spans) for spans in product(*(list(_spans(extent, halo, side)) for extent in size))]


def _spans(extent: int, halo: int, side: int) -> Iterator[Span]:
    """As even as whole numbers allow: a sliver would cost a halo and give nothing."""
    count = -(-extent // side)
    borders = [extent * k // count for k in range(count + 1)]
    for start, stop in pairwise(borders):
        yield Span(start, stop, max(0, start - halo), min(extent, stop + halo))


@dataclass(frozen=True)
class Halos:
    """How far the transforms look, in latent positions: a tile needs as many around it."""

    analysis: int
    synthesis: int


def halos(model: nn.Module) -> Halos:
    """The halos of a model's `analyse` and `synthesize`, whose only layers that look around are convolutions.

    Its convolutions say how far they reach while a small image goes through. Branches that run beside each other are
    counted as one after the other, which is never too little.
    """
    extent = 4
    device = next(model.parameters()).device
    maps_1HW = torch.zeros(1, extent, extent, dtype=torch.int64, device=device)
    x_13HW = torch.zeros(1, 3, STRIDE * extent, STRIDE * extent, device=device)
    latent_1CHW = torch.zeros(1, model.config.latent_channels, extent, extent, device=device)
    return Halos(
        _reach(model, lambda: model.analyse(x_13HW, maps_1HW), STRIDE * extent),
        _reach(model, lambda: model.synthesize(latent_1CHW, maps_1HW), STRIDE * extent),
    )


def _reach(model: nn.Module, run: Callable[[], object], width: int) -> int:
    """Latent positions that the convolutions of one run reach in all; `width`: that of the image, in pixels."""
    pixels = 0

    def look(layer: nn.Conv2d | nn.ConvTranspose2d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal pixels
        fine = max(inputs[0].shape[-1], output.shape[-1])  # the side on which a stride counts
        ways = zip(layer.kernel_size, layer.padding, layer.stride, layer.dilation, strict=True)
        # Seen from the `stride` places that one coarse place stands for: the padding before, the rest behind.
        reach = max(max(padding, d * (kernel - 1) + 1 - padding - stride) for kernel, padding, stride, d in ways)
        pixels += reach * width // fine

    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    hooks = [layer.register_forward_hook(look) for layer in model.modules() if isinstance(layer, kinds)]
    try:
        with torch.inference_mode():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return -(-pixels // STRIDE)
