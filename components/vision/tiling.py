"""How an MLLM of high resolution cuts an image: windows of its size for the tower, and a view of the whole.

The tiling is the MLLM's own and comes after decoding: what is coded is the image, once. A window says where in the
image its pixels lie, so that the same crops of the decoded latent meet the tower's patches (paper, section 3.4).
On pixels the operations are those of the Hugging Face image processors, and so are the numbers, to the bit.
"""

from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tvF
from transformers.image_processing_utils import get_patch_output_size, select_best_resolution
from transformers.image_utils import ChannelDimension
from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

from components.errors import CotamError
from components.vision.geometry import Geometry, sample_at, sample_positions

Size = tuple[int, int]
"""Height and width."""


@dataclass(frozen=True)
class Window:
    """A rectangle of the tower's size in the resized image; what lies outside that is black."""

    resized: Size
    """To what the whole image is resized."""
    offset: tuple[int, int]
    """Of the window's first row and column in the resized image; negative where black comes first."""
    size: Size

    def sample_latent(self, latent_BCHW: Tensor, image_size: Size, grid: Size, stride: int = 16) -> Tensor:
        """As `Geometry.sample_latent`: a map over the image's pixels, carried to this window's patches."""
        rows, cols = (
            sample_positions(
                self.size[axis], grid[axis], image_size[axis] / self.resized[axis], self.offset[axis], stride
            )
            for axis in (0, 1)
        )
        return sample_at(latent_BCHW, rows, cols, image_size, grid, stride)


class Framing(Protocol):
    """What the tower is shown of images of one size: T inputs for each."""

    def pixels(self, images_B3HW: Tensor) -> Tensor:
        """uint8 -> normalised inputs (B, T, 3, h, w), float32."""

    def sample_latent(self, latent_BCHW: Tensor, image_size: Size, grid: Size, stride: int = 16) -> Tensor:
        """A map over the images' pixels -> the patches of every input: (T B, C, gh, gw), input by input."""


@dataclass(frozen=True)
class Whole:
    """One input: the whole image, through a geometry."""

    geometry: Geometry

    def pixels(self, images_B3HW: Tensor) -> Tensor:
        """As `Framing` says; T = 1."""
        return self.geometry.transform(images_B3HW)[:, None]

    def sample_latent(self, latent_BCHW: Tensor, image_size: Size, grid: Size, stride: int = 16) -> Tensor:
        """As `Framing` says."""
        return self.geometry.sample_latent(latent_BCHW, image_size, grid, stride)


@dataclass(frozen=True)
class Cut:
    """An input for each window."""

    geometry: Geometry
    windows: tuple[Window, ...]

    def pixels(self, images_B3HW: Tensor) -> Tensor:
        """As `Framing` says. The image is resized once for windows that follow each other in it."""
        parts = []
        for resized, group in groupby(self.windows, key=lambda window: window.resized):
            whole_B3HW = tvF.resize(
                images_B3HW, list(resized), interpolation=self.geometry.interpolation, antialias=True
            )
            # tvF.crop fills with black where a window leaves the image.
            parts += [tvF.crop(whole_B3HW, *window.offset, *window.size) for window in group]
        return self.geometry.normalise(torch.stack(parts, dim=1))

    def sample_latent(self, latent_BCHW: Tensor, image_size: Size, grid: Size, stride: int = 16) -> Tensor:
        """As `Framing` says."""
        return torch.cat([window.sample_latent(latent_BCHW, image_size, grid, stride) for window in self.windows])


@dataclass(frozen=True)
class AnyRes:
    """LLaVA-OneVision: the whole first, then tiles of the image resized into the best of some canvases and centred."""

    geometry: Geometry
    """Of the view of the whole: resized to the tower's size, whatever the shape."""
    pinpoints: tuple[Size, ...]
    """Height and width of the canvases, multiples of the tower's."""

    def frame(self, image_size: Size) -> Cut:
        """The whole, then the tiles row by row."""
        side = self.geometry.exact_size
        canvas = select_best_resolution(image_size, list(self.pinpoints))
        # transformers asks for an image; one without memory has a size too.
        shape = torch.empty(3, *image_size, device="meta")
        resized = get_patch_output_size(shape, canvas, ChannelDimension.FIRST)
        before = [(outer - inner) // 2 for outer, inner in zip(canvas, resized, strict=True)]
        tiles = [
            Window(resized, (top - before[0], left - before[1]), side)
            for top in range(0, canvas[0], side[0])
            for left in range(0, canvas[1], side[1])
        ]
        return Cut(self.geometry, (Window(side, (0, 0), side), *tiles))


@dataclass(frozen=True)
class Mosaic:
    """InternVL: tiles of the image stretched to the grid of nearest shape, then the whole if there are several."""

    geometry: Geometry
    """Of the view of the whole, as in `AnyRes`."""
    minimum: int
    maximum: int
    """How many tiles there may be."""

    def frame(self, image_size: Size) -> Cut:
        """The tiles row by row, then the whole."""
        height, width = side = self.geometry.exact_size
        columns, rows = get_optimal_tiled_canvas(image_size, side, self.minimum, self.maximum)
        resized = (height * rows, width * columns)
        corners = [(height * row, width * column) for row in range(rows) for column in range(columns)]
        tiles = tuple(Window(resized, corner, side) for corner in corners)
        return Cut(self.geometry, tiles if len(tiles) == 1 else (*tiles, Window(side, (0, 0), side)))


def tiling_of(processor: Any) -> AnyRes | Mosaic:
    """The tiling of an image processor.

    Raises:
        CotamError: it cuts no tiles, or resizes in a way that is not known.
    """
    geometry = Geometry.from_processor(processor)
    if geometry.exact_size is None:
        raise CotamError(f"The image processor resizes to {processor.size}; tiles need a height and a width.")
    if hasattr(processor, "image_grid_pinpoints"):
        return AnyRes(geometry, tuple(map(tuple, processor.image_grid_pinpoints)))
    if hasattr(processor, "max_patches"):
        return Mosaic(geometry, processor.min_patches, processor.max_patches)
    raise CotamError(f"A {type(processor).__name__} cuts no tiles.")
