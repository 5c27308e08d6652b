"""CLIP: a CLS token, a norm before the encoder. It guides, and LLaVA-1.5 sees through it."""

from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPModel, CLIPVisionModel

from components.vision.geometry import Geometry
from components.vision.reading import whole
from components.vision.tower import Tower


class ClipTower(Tower):
    """A `CLIPVisionModel`."""

    model_class = CLIPVisionModel
    consumed = -2

    def _embed(self, patches_BND: Tensor) -> Tensor:
        embeddings = self.model.embeddings
        patches_BND = patches_BND.to(self.model.dtype)
        cls_B1D = embeddings.class_embedding.expand(len(patches_BND), 1, -1)
        tokens_BTD = torch.cat([cls_B1D, patches_BND], dim=1)
        return self.model.pre_layrnorm(tokens_BTD + embeddings.position_embedding(embeddings.position_ids))


def clip_tower(folder: Path) -> ClipTower:
    """The image side of a `CLIPModel`."""
    return ClipTower(whole(CLIPModel, folder).vision_model, Geometry.from_pretrained(folder))
