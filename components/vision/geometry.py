"""How an image becomes the pixels a tower takes, and how the same transform carries a codec's latent.

What is coded is the image at its own size; an MLLM's resizing, padding and cropping come after decoding. The latent
must meet the same patches as the pixels do, so one `Geometry` does both. On pixels it repeats, operation for
operation, what the Hugging Face image processor does with torchvision, but also differentiably and on whole batches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tvF

from components.errors import CotamError

INTERPOLATION = {
    Image.Resampling.NEAREST: InterpolationMode.NEAREST_EXACT,
    Image.Resampling.BILINEAR: InterpolationMode.BILINEAR,
    Image.Resampling.BICUBIC: InterpolationMode.BICUBIC,
}


@dataclass(frozen=True)
class Geometry:
    """Pad to a square, resize, crop at the centre, normalise: each step optional, in this order."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    pad_to_square: bool = False
    """Pad the short side on both ends with the mean colour (LLaVA's original preprocessing)."""
    shortest_edge: int | None = None
    """Resize so that the short side has this many pixels, or, instead,"""
    exact_size: tuple[int, int] | None = None
    """resize to this height and width."""
    crop: tuple[int, int] | None = None
    """Height and width that the centre crop leaves; a smaller image is padded with black."""
    interpolation: InterpolationMode = InterpolationMode.BICUBIC

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "Geometry":
        """Read the image processor of a model's folder (preprocessor_config.json, or processor_config.json)."""
        from transformers import AutoImageProcessor

        try:
            processor = AutoImageProcessor.from_pretrained(folder)
        except (OSError, ValueError) as error:
            raise CotamError(f"{folder} has no image processor: its preprocessor_config.json is missing.") from error
        return cls.from_processor(processor)

    @classmethod
    def from_processor(cls, processor: Any) -> "Geometry":
        """The geometry of an image processor, tiles left out (`tiling_of`).

        Raises CotamError for steps that it does not know.
        """
        if not (processor.do_rescale and processor.do_normalize and abs(processor.rescale_factor * 255 - 1) < 1e-9):
            raise CotamError("The image processor must rescale by 1/255 and normalise.")
        size = dict(processor.size) if processor.do_resize else {}
        crop = processor.crop_size if getattr(processor, "do_center_crop", None) else None
        if size and set(size) not in ({"shortest_edge"}, {"height", "width"}):
            raise CotamError(f"The image processor resizes to {size}; use shortest_edge alone, or height and width.")
        if processor.resample not in INTERPOLATION:
            raise CotamError(f"The image processor resamples with filter {processor.resample}; use 0, 2 or 3.")
        return cls(
            mean=tuple(processor.image_mean),
            std=tuple(processor.image_std),
            # CLIP's own processor pads only when pad_size is set; LLaVA's do_pad means "to a square".
            # OneVision's pads only several images (tiling.py).
            pad_to_square=bool(getattr(processor, "do_pad", False))
            and hasattr(processor, "pad_to_square")
            and not hasattr(processor, "image_grid_pinpoints"),
            shortest_edge=size.get("shortest_edge"),
            exact_size=(size["height"], size["width"]) if "height" in size else None,
            crop=(crop["height"], crop["width"]) if crop else None,
            interpolation=INTERPOLATION[processor.resample],
        )

    @property
    def output_size(self) -> tuple[int, int] | None:
        """Height and width of what comes out, when every image gives the same; else None."""
        return self.crop or self.exact_size

    def pixels(self, images: Sequence[Image.Image | np.ndarray]) -> Tensor:
        """Images (PIL, or uint8 (H, W, 3) arrays), of any sizes -> normalised pixels (B, 3, H', W'), float32."""
        tensors = [to_tensor(image) for image in images]
        if len({tensor.shape for tensor in tensors}) == 1:
            return self.transform(torch.stack(tensors))
        return torch.cat([self.transform(tensor[None]) for tensor in tensors])

    def transform(self, images_B3HW: Tensor) -> Tensor:
        """The same for a batch of one size: uint8, or float in [0, 1] (then differentiable) -> (B, 3, H', W')."""
        images = images_B3HW if images_B3HW.dtype == torch.uint8 else images_B3HW * 255
        height, width = images.shape[-2:]
        if self.pad_to_square and height != width:
            left, top, right, bottom = self._square_padding(height, width)
            images = tvF.pad(images, [left, top, right, bottom], fill=[int(255 * value) for value in self.mean])
        resized = self._resized(*images.shape[-2:])
        images = tvF.resize(images, list(resized), interpolation=self.interpolation, antialias=True)
        if self.crop:
            images = _centre_crop(images, *self.crop)
        return self.normalise(images)

    def normalise(self, images_B3HW: Tensor) -> Tensor:
        """The last step alone: values 0 to 255 -> normalised, float32."""
        # In float32 and in this order, as the processor fuses rescaling and normalisation.
        mean = torch.tensor(self.mean, device=images_B3HW.device) * 255.0
        std = torch.tensor(self.std, device=images_B3HW.device) * 255.0
        return tvF.normalize(images_B3HW.to(torch.float32), mean, std)

    def sample_latent(
        self, latent_BCHW: Tensor, image_size: tuple[int, int], grid: tuple[int, int], stride: int = 16
    ) -> Tensor:
        """Carry a map over the image's own pixels to the tower's patches: (B, C, h, w) -> (B, C, gh, gw).

        Position (r, c) of the map covers the image's pixels from (stride r, stride c) on; `image_size` is the coded
        image's (height, width), which the map may overhang at the bottom and right. Each patch gets the mean of
        bilinear samples over its area, at least one per map position; what the tower sees of padding is zero.
        Differentiable in the map. An image of the tower's own size with patches of `stride` pixels passes unchanged.
        """
        rows, cols = self._source_positions(image_size, grid, stride)
        return sample_at(latent_BCHW, rows, cols, image_size, grid, stride)

    def _source_positions(
        self, image_size: tuple[int, int], grid: tuple[int, int], stride: int
    ) -> tuple[Tensor, Tensor]:
        """Where samples over each patch row and column lie in the image: pixels from its top and left edge."""
        if self.output_size is None:
            raise CotamError("A latent can only be carried into a geometry whose output has one size.")
        height, width = image_size
        left, top, right, bottom = self._square_padding(height, width) if self.pad_to_square else (0, 0, 0, 0)
        padded = (height + top + bottom, width + left + right)
        resized = self._resized(*padded)
        positions = []
        for axis, padding in enumerate((top, left)):
            scale = padded[axis] / resized[axis]
            offset = _crop_offset(resized[axis], self.crop[axis]) if self.crop else 0
            positions.append(sample_positions(self.output_size[axis], grid[axis], scale, offset, stride) - padding)
        return positions[0], positions[1]

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if self.exact_size:
            return self.exact_size
        if not self.shortest_edge:
            return height, width
        edge = self.shortest_edge
        if width <= height:
            return int(edge * height / width), edge
        return edge, int(edge * width / height)

    @staticmethod
    def _square_padding(height: int, width: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom padding that makes a square."""
        side = max(height, width)
        left, top = (side - width) // 2, (side - height) // 2
        return left, top, side - width - left, side - height - top


def sample_positions(extent: int, patches: int, scale: float, offset: float, stride: int) -> Tensor:
    """Where samples over each patch lie in the image, in pixels from its edge, along one axis.

    Args:
        extent: pixels that the tower takes, shared by `patches`; at least one sample is taken per latent position.
        scale: pixels of the image per pixel of the tower.
        offset: where the tower's first pixel lies in the resized image.
    """
    patch = extent // patches  # a convolution leaves what is left over at the end unseen: 384 = 27 x 14 + 6
    samples = max(1, ceil(patch * scale / stride - 1e-6))
    centres = (torch.arange(patches * samples, dtype=torch.float64) + 0.5) * (patch / samples)
    return (centres + offset) * scale


def sample_at(
    latent_BCHW: Tensor, rows: Tensor, cols: Tensor, image_size: tuple[int, int], grid: tuple[int, int], stride: int
) -> Tensor:
    """Means over patches of bilinear samples of a map at `rows` x `cols`, pixels of the image; zero outside it."""
    height, width = latent_BCHW.shape[-2:]
    unchanged = rows.equal(_centres(height, stride)) and cols.equal(_centres(width, stride))
    if unchanged and (height, width) == grid:
        return latent_BCHW  # as sampling would; it takes a twentieth of the adapter's training
    device = latent_BCHW.device
    inside_hw = torch.outer(_within(rows, image_size[0]), _within(cols, image_size[1])).to(device)
    # grid_sample's coordinates run from -1 to 1 over the map's outer edges (align_corners=False).
    y = (rows / (stride * height) * 2 - 1).to(device, latent_BCHW.dtype)
    x = (cols / (stride * width) * 2 - 1).to(device, latent_BCHW.dtype)
    where_hw2 = torch.stack(torch.broadcast_tensors(x[None, :], y[:, None]), dim=-1)
    where_Bhw2 = where_hw2.expand(len(latent_BCHW), -1, -1, -1)
    sampled = F.grid_sample(latent_BCHW, where_Bhw2, padding_mode="border", align_corners=False)
    sampled = sampled * inside_hw.to(latent_BCHW.dtype)
    return F.avg_pool2d(sampled, (len(rows) // grid[0], len(cols) // grid[1]))


def to_tensor(image: Image.Image | np.ndarray) -> Tensor:
    """uint8 (3, H, W)."""
    if isinstance(image, Image.Image):
        image = np.array(image.convert("RGB"))
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)


def _centres(count: int, stride: int) -> Tensor:
    return (torch.arange(count, dtype=torch.float64) + 0.5) * stride


def _within(positions: Tensor, extent: int) -> Tensor:
    return ((positions >= 0) & (positions < extent)).to(torch.float64)


def _crop_offset(size: int, crop: int) -> int:
    """First pixel that the centre crop keeps; negative where it pads instead."""
    return int((size - crop) / 2.0) if size >= crop else -((crop - size) // 2)


def _centre_crop(images: Tensor, height: int, width: int) -> Tensor:
    """Cut, or pad with black, to the size: transformers' rounding, which is not torchvision's `center_crop`."""
    top, left = _crop_offset(images.shape[-2], height), _crop_offset(images.shape[-1], width)
    # tvF.crop pads with zeros where the window leaves the image.
    return tvF.crop(images, top, left, height, width)
