"""What MLLMs of high resolution have in common: a tiling of images, and a geometry of their own for frames."""

from typing import Any

from transformers import PreTrainedModel

from components.mllm.family import Family
from components.vision import Geometry
from components.vision.tiling import AnyRes, Mosaic, tiling_of


class Tiled(Family):
    """An MLLM that cuts large images into tiles."""

    def __init__(self, model: PreTrainedModel, tiling: AnyRes | Mosaic, video: Geometry):
        super().__init__(model, tiling.geometry)
        self.tiling = tiling
        self.video = video

    @classmethod
    def open(cls, model: PreTrainedModel, processor: Any) -> "Tiled":
        """The family around a model, with the geometries of its processor."""
        return cls(model, tiling_of(processor.image_processor), Geometry.from_processor(processor.video_processor))
