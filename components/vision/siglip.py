"""SigLIP: no CLS token. LLaVA-OneVision sees through it."""

from pathlib import Path

from torch import Tensor
from transformers import SiglipModel, SiglipVisionModel

from components.vision.geometry import Geometry
from components.vision.reading import whole
from components.vision.tower import Tower


class SiglipTower(Tower):
    """A `SiglipVisionModel`. Its pooling head comes after all that is looked at, and is never run."""

    model_class = SiglipVisionModel
    cls = 0

    def __init__(self, model: SiglipVisionModel, *args, **kwargs):
        super().__init__(model, *args, **kwargs)
        self.model.use_head = False

    def _embed(self, patches_BND: Tensor) -> Tensor:
        embeddings = self.model.embeddings
        return patches_BND.to(self.model.dtype) + embeddings.position_embedding(embeddings.position_ids)


def siglip_tower(folder: Path) -> SiglipTower:
    """The image side of a `SiglipModel`."""
    return SiglipTower(whole(SiglipModel, folder).vision_model, Geometry.from_pretrained(folder))
