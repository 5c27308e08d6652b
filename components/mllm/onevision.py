"""LLaVA-OneVision: a SigLIP, a view of the whole beside tiles (`LlavaOnevisionForConditionalGeneration`).

One image is cut into tiles ("anyres"); the model takes their padding away, shrinks what is too much and ends every row
with a newline token. Of several images each is one view, padded to a square. A frame of a video is one view, of which
the model keeps a quarter of the tokens.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import LlavaOnevisionForConditionalGeneration

from components.mllm.tiled import Tiled
from components.mllm.visual import Kind, Size, Visual
from components.vision.tiling import Framing, Whole


class OneVision(Tiled):
    """What `arrange` gives equals transformers' `get_image_features` where no view has a residual."""

    model_class = LlavaOnevisionForConditionalGeneration

    def framing(self, kind: Kind, image_size: Size) -> Framing:
        """Tiles for one image; else one view."""
        if kind is Kind.IMAGE:
            return self.tiling.frame(image_size)
        return Whole(self.video if kind is Kind.VIDEO else replace(self.geometry, pad_to_square=True))

    def arrange(self, visual: Visual, embedded: Sequence[Tensor]) -> list[Tensor]:
        """Tiles packed, frames pooled, and the newline token, by the model's own functions."""
        model = self.model.model
        if visual.kind is Kind.VIDEO:
            frames_FnE = model.apply_pooling(torch.cat(list(embedded)))
            return [torch.cat([frames_FnE.flatten(0, 1), model.image_newline[None].to(frames_FnE)])]
        packed, _ = model.pack_image_features(
            embedded, visual.sizes, model.image_newline, self.model.config.vision_aspect_ratio
        )
        return packed

    def placeholder(self, processor: Any, visual: Visual, tokens: int) -> str:
        """One token after the other."""
        return (processor.video_token if visual.kind is Kind.VIDEO else processor.image_token) * tokens
