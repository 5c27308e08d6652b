"""InternVL: an InternViT, tiles and a thumbnail, pixel shuffle (`InternVLForConditionalGeneration`).

Four patches side by side become one token. One image, or each of several, is cut into tiles; a frame of a video is one
view.
"""

from collections.abc import Sequence
from math import isqrt
from typing import Any

import torch
from torch import Tensor
from transformers import InternVLForConditionalGeneration

from components.mllm.tiled import Tiled
from components.mllm.visual import Kind, Size, Visual
from components.vision.tiling import Framing, Whole


class InternVL(Tiled):
    """What `arrange` gives equals transformers' `get_image_features` where no view has a residual."""

    model_class = InternVLForConditionalGeneration

    def framing(self, kind: Kind, image_size: Size) -> Framing:
        """Tiles for an image; one view for a frame."""
        return Whole(self.video) if kind is Kind.VIDEO else self.tiling.frame(image_size)

    def project(self, features_BTD: Tensor) -> Tensor:
        """Pixel shuffle, then the projector, both the model's own."""
        features_BND = self.selected(features_BTD)
        side = isqrt(features_BND.shape[1])
        features_BwhD = features_BND.unflatten(1, (side, side))
        shuffled_BwhD = self.model.model.pixel_shuffle(features_BwhD, scale_factor=self.model.config.downsample_ratio)
        return self.model.model.multi_modal_projector(shuffled_BwhD.flatten(1, 2))

    def arrange(self, visual: Visual, embedded: Sequence[Tensor]) -> list[Tensor]:
        """Tiles, or frames, one after the other."""
        images = super().arrange(visual, embedded)
        return [torch.cat(images)] if visual.kind is Kind.VIDEO else images

    def placeholder(self, processor: Any, visual: Visual, tokens: int) -> str:
        """The tokens between marks; of a video, frame by frame, each with its number."""
        if visual.kind is not Kind.VIDEO:
            return f"{processor.start_image_token}{processor.image_token * tokens}{processor.end_image_token}"
        of_one = processor.image_token * (tokens // len(visual.images))
        marked = f"{processor.start_image_token}{of_one}{processor.end_image_token}"
        return "\n".join(f"Frame{number}: {marked}" for number in range(1, len(visual.images) + 1))
