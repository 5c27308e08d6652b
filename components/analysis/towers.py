"""A vision tower to look into: any of `components.vision`, and where its tokens and its attention are."""

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from components.analysis.encoder import Encoder
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
        layers: how many there are, L.
        look: runs the tower on pixels, for those who listen (`Encoder`).
    """

    name: str
    model: PreTrainedModel
    geometry: Geometry
    layout: Layout
    layers: int
    look: Encoder


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
    return Tower(name, tower.model, tower.geometry, Layout(tower.cls, tower.grid), tower.layers, Encoder(tower))


def tower_name(path_or_name: Path | str) -> str:
    """The last two parts of a path or a Hub name: `clip/micro`, `llava-hf/llava-1.5-7b-hf`."""
    return "/".join(Path(str(path_or_name)).parts[-2:]).lstrip("/")
