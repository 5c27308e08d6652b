"""A vision tower to look into: any of `components.vision`, and where its tokens and its attention are."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from components.analysis.flow import Layout
from components.vision import Geometry, load_tower
from components.vision import Tower as FrozenTower


@dataclass(frozen=True)
class Tower:
    """A frozen tower in float32.

    Attributes:
        name: what figures call it.
        model: takes normalised pixels (B, 3, H, W).
        geometry: makes these of images.
        layout: of its tokens.
        layers: the encoder's layers, in order; each gives (B, T, D).
        attentions: the attention module of each layer.
    """

    name: str
    model: PreTrainedModel
    geometry: Geometry
    layout: Layout
    layers: list[nn.Module]
    attentions: list[nn.Module]

    @torch.inference_mode()
    def forward(self, pixels_B3HW: Tensor) -> None:
        """Run it, for those who listen."""
        self.model(pixels_B3HW)


def open_tower(path_or_name: Path | str) -> Tower:
    """Open a tower.

    Args:
        path_or_name: a folder, a registered version, or a Hugging Face name (`components.weights.resolve`).

    Raises:
        CotamError: there is none, it is damaged, or it is of a kind that is not known.
    """
    return describe(load_tower(path_or_name), tower_name(path_or_name))


def describe(tower: FrozenTower, name: str) -> Tower:
    """A tower that is there already, with what the analysis has to know of it."""
    layers = list(tower.blocks)
    attentions = [tower.attention_of(layer) for layer in layers]
    return Tower(name, tower.model, tower.geometry, Layout(tower.cls, tower.grid), layers, attentions)


def tower_name(path_or_name: Path | str) -> str:
    """The last two parts of a path or a Hub name: `clip/micro`, `openai/clip-vit-large-patch14-336`."""
    return "/".join(Path(str(path_or_name)).parts[-2:]).lstrip("/")
