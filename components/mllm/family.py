"""What an MLLM family is: how its images become views, and views what the language model reads.

A family is one class over transformers' own model class. The model's code is not touched: what enters its tower is
replaced (the adapter's residual is added to the patch embeddings), and what comes out goes through the model's own
projector and its own packing of tiles.

Shapes: B views, T tokens of the tower, D its width, n tokens of a view for the language model, E its width.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from components.errors import CotamError
from components.mllm.view import View
from components.mllm.visual import Kind, Size, Visual
from components.vision import FAMILIES as TOWERS
from components.vision import Geometry
from components.vision.tiling import Framing, Whole


class Family:
    """An MLLM with its vision tower opened, so that a residual can be added to the patch embeddings."""

    model_class: ClassVar[type[PreTrainedModel]]
    kinds: ClassVar[tuple[Kind, ...]] = tuple(Kind)
    """What one question can be about."""

    def __init__(self, model: PreTrainedModel, geometry: Geometry):
        """`geometry` makes one view of a whole image.

        Raises CotamError where the MLLM sees through an unknown tower, or reads several of its layers.
        """
        check_config(model.config)
        self.model = model.eval().requires_grad_(False)
        self.geometry = geometry
        tower = TOWERS[model.config.vision_config.model_type]
        self.tower = tower(model.model.vision_tower, geometry, model.config.vision_feature_layer)

    @classmethod
    def open(cls, model: PreTrainedModel, processor: Any) -> "Family":
        """The family around a model, with the geometry of its processor."""
        return cls(model, Geometry.from_processor(processor.image_processor))

    def framing(self, kind: Kind, image_size: Size) -> Framing:
        """What the tower is shown of an image or frame of this size."""
        return Whole(self.geometry)

    def embed(self, views: Sequence[View]) -> Tensor:
        """What the language model reads of each view before tiles are packed: (B, n, E)."""
        layer = self.tower.feature_layer
        features: dict[int, Tensor] = {}
        for entered, group in _by_entry(views).items():
            chosen = [views[index] for index in group]
            if entered is None:
                states = self.tower.hidden_states(self._patches(chosen), {layer})
            else:
                tokens_BTD = torch.stack([view.entry.tokens_TD for view in chosen]).to(self._device)
                states = self.tower.states_from(tokens_BTD, entered, {layer})
            features |= zip(group, states[layer], strict=True)
        return self.project(torch.stack([features[index] for index in range(len(views))]))

    def project(self, features_BTD: Tensor) -> Tensor:
        """What the language model reads of the tower's states at `feature_layer`, CLS first: (B, n, E)."""
        return self.model.model.multi_modal_projector(self.selected(features_BTD))

    def selected(self, features_BTD: Tensor) -> Tensor:
        """The states that the projector takes, in the model's type."""
        if self.model.config.vision_feature_select_strategy == "default":
            features_BTD = features_BTD[:, 1:]
        return features_BTD.to(self.model.dtype)

    def arrange(self, visual: Visual, embedded: Sequence[Tensor]) -> list[Tensor]:
        """What stands in the prompt for every placeholder of a visual, each (tokens, E).

        Args:
            visual: what is asked about.
            embedded: of every image or frame, its views as `embed` gives them, (views, n, E).
        """
        return [image.flatten(0, 1) for image in embedded]

    def placeholder(self, processor: Any, visual: Visual, tokens: int) -> str:
        """The text that the processor puts where its template says image or video, for so many tokens."""
        return processor.image_token * tokens

    @property
    def _device(self) -> torch.device:
        """Of the tower: a model may be spread over several."""
        return next(self.tower.model.parameters()).device

    def _patches(self, views: Sequence[View]) -> Tensor:
        """Patch embeddings (B, N, D) with the views' residuals."""
        pixels_B3HW = torch.stack([view.pixels_3HW for view in views]).to(self._device)
        patches_BND = self.tower.patch_embed(pixels_B3HW)
        if any(view.residual_ND is not None for view in views):
            nothing_ND = torch.zeros_like(patches_BND[0])
            residuals = [nothing_ND if view.residual_ND is None else view.residual_ND for view in views]
            seen_B11 = torch.tensor([float(not view.alone) for view in views]).to(patches_BND)[:, None, None]
            patches_BND = patches_BND * seen_B11 + torch.stack([residual.to(self._device) for residual in residuals])
        return patches_BND


def _by_entry(views: Sequence[View]) -> dict[int | None, list[int]]:
    """Layer at which the tower is entered (None: at its patch embedding) -> the places of such views."""
    groups: dict[int | None, list[int]] = {}
    for index, view in enumerate(views):
        groups.setdefault(view.entry and view.entry.layer, []).append(index)
    return groups


def check_config(config: Any) -> None:
    """Raises CotamError for an MLLM whose tower is unknown, or that reads several of its layers."""
    tower = config.vision_config.model_type
    if tower not in TOWERS:
        raise CotamError(f"This MLLM sees through a {tower!r}; a tower must be one of {', '.join(TOWERS)}.")
    if not isinstance(config.vision_feature_layer, int):
        raise CotamError(f"This MLLM reads the tower's layers {config.vision_feature_layer}; only one is supported.")
