"""The LLaVA family: one CLIP tower, one hidden state of it, a two-layer projector (`LlavaForConditionalGeneration`).

The shipped micro-llava and llava-hf/llava-1.5-7b-hf run through these same lines.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlavaConfig, LlavaForConditionalGeneration

from components.errors import CotamError
from components.mllm.view import View
from components.vision import ClipTower, Geometry


class Llava:
    """A LLaVA with its vision tower opened, so that a residual can be added to the patch embeddings."""

    def __init__(self, model: LlavaForConditionalGeneration, geometry: Geometry):
        check_config(model.config)
        self.model = model.eval().requires_grad_(False)
        self.geometry = geometry
        self.tower = ClipTower(model.model.vision_tower, geometry, model.config.vision_feature_layer)

    @classmethod
    def load(cls, folder: Path, geometry: Geometry, dtype: torch.dtype | str) -> "Llava":
        """Read the weights in `folder`; `dtype` as in `from_pretrained`."""
        return cls(LlavaForConditionalGeneration.from_pretrained(folder, dtype=dtype), geometry)

    def embed(self, views: Sequence[View]) -> Tensor:
        """What the language model reads in place of the image tokens: (B, tokens per image, language model's width).

        Equal bit for bit to `get_image_features` of transformers where no view has a residual, or a residual of zero.
        """
        if all(view.entry is None for view in views):
            return self.project(self._see(views))
        layer = self.tower.feature_layer
        features: dict[int, Tensor] = {}
        for entered, places in _by_entry(views).items():
            group = [views[place] for place in places]
            if entered is None:
                states_BTD = self._see(group)
            else:
                tokens_BTD = torch.stack([view.entry.tokens_TD for view in group]).to(self.model.device)
                states_BTD = self.tower.states_from(tokens_BTD, entered, {layer})[layer]
            features |= zip(places, states_BTD, strict=True)
        return self.project(torch.stack([features[place] for place in range(len(views))]))

    def project(self, features_BTD: Tensor) -> Tensor:
        """What the language model reads of the tower's states at its feature layer, CLS first."""
        if self.model.config.vision_feature_select_strategy == "default":
            features_BTD = features_BTD[:, 1:]
        return self.model.model.multi_modal_projector(features_BTD.to(self.model.dtype))

    def _see(self, views: Sequence[View]) -> Tensor:
        """The tower's states (B, 1 + N, D) at its feature layer, of views with pixels."""
        device = self.model.device
        pixels_B3HW = torch.stack([view.pixels_3HW for view in views]).to(device)
        patches_BND = self.tower.patch_embed(pixels_B3HW)
        if any(view.residual_ND is not None for view in views):
            nothing_ND = torch.zeros_like(patches_BND[0])
            residuals = [nothing_ND if view.residual_ND is None else view.residual_ND.to(device) for view in views]
            seen_B11 = torch.tensor([float(not view.alone) for view in views]).to(patches_BND)[:, None, None]
            patches_BND = patches_BND * seen_B11 + torch.stack(residuals)
        layer = self.tower.feature_layer
        return self.tower.hidden_states(patches_BND, {layer})[layer]


def _by_entry(views: Sequence[View]) -> dict[int | None, list[int]]:
    """Layer at which the tower is entered (None: as ever, by its patches) -> the places of such views."""
    groups: dict[int | None, list[int]] = {}
    for place, view in enumerate(views):
        groups.setdefault(view.entry and view.entry.layer, []).append(place)
    return groups


def check_config(config: LlavaConfig) -> None:
    """Raises CotamError for a LLaVA whose tower is not a CLIP, or that reads several of its layers."""
    tower = config.vision_config.model_type
    if tower != "clip_vision_model":
        raise CotamError(f"This LLaVA sees through a {tower!r}; only those that see through a CLIP are supported.")
    if not isinstance(config.vision_feature_layer, int):
        raise CotamError(f"This LLaVA reads the tower's layers {config.vision_feature_layer}; only one is supported.")
