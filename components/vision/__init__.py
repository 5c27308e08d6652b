"""Frozen vision towers behind one interface, and the geometry that carries an image into them.

`load_tower` opens a tower of any registered family; `Geometry` is the resize, pad, crop and normalisation of its
Hugging Face image processor, applied to pixels and, the same way, to a codec's latent. `tiling_of` is the same for
MLLMs that cut large images into tiles.
"""

from components.vision.clip import ClipTower
from components.vision.geometry import Geometry
from components.vision.internvit import InternVitTower
from components.vision.registry import FAMILIES, TOWERS, load_tower
from components.vision.siglip import SiglipTower
from components.vision.tower import Features, Parts, Tower

__all__ = [
    "FAMILIES",
    "TOWERS",
    "ClipTower",
    "Features",
    "Geometry",
    "InternVitTower",
    "Parts",
    "SiglipTower",
    "Tower",
    "load_tower",
]
