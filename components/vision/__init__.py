"""Frozen vision towers behind one interface, and the geometry that carries an image into them.

`load_tower` opens a tower of any registered family; `Geometry` is the resize, pad, crop and normalisation of its
Hugging Face image processor, applied to pixels and, the same way, to a codec's latent grid.
"""

from components.vision.geometry import Geometry
from components.vision.registry import TOWERS, load_tower
from components.vision.tower import ClipTower, Features

__all__ = ["TOWERS", "ClipTower", "Features", "Geometry", "load_tower"]
