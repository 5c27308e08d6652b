"""One way to encode and decode pictures for all compared methods: the codec with and without guidance, JPEG, WebP."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from components.baselines import conventional
from components.codec import container
from components.evaluation.pictures import Pictures
from components.evaluation.streams import COTAM, SUFFIXES, Files, Setting

if TYPE_CHECKING:
    from components.codec import Codec, Decoded

PORTION = 32  # pictures that are coded together

Guide = Callable[[Sequence[NDArray[np.uint8]]], Sequence[NDArray[np.int8] | None]]
"""Pictures -> their level maps, (rows, columns) in {-1, 0, 1} each (paper, section 3.2); None where there is none."""


class Coder:
    """The methods of one codec; without one, the conventional ones. Only to encode as `cotam` needs `guide`."""

    def __init__(self, codec: "Codec | None", guide: Guide | None = None):
        self.codec = codec
        self.guide = guide

    def encode(self, setting: Setting, pictures: Pictures) -> Files:
        """A file per picture."""
        quality = int(setting.quality)
        if setting.method in SUFFIXES:
            write = conventional.ENCODERS[setting.method]
            return {name: write(picture, quality) for name, picture in pictures.items()}
        files: Files = {}
        for names in portions(pictures):
            portion = [pictures[name] for name in names]
            levels = self.guide(portion) if setting.method == COTAM else None
            files |= zip(names, self.codec.encode(portion, quality, levels), strict=True)
        return files

    def decode(self, files: Files) -> "dict[str, Decoded]":
        """What the codec makes of its files."""
        decoded: dict[str, Decoded] = {}
        for names in portions(files):
            decoded |= zip(names, self.codec.decode([files[name] for name in names]), strict=True)
        return decoded

    def pictures(self, setting: Setting, files: Files) -> Pictures:
        """What a person would see of the files."""
        if setting.method in SUFFIXES:
            return {name: conventional.decode(content) for name, content in files.items()}
        return {name: decoded.image for name, decoded in self.decode(files).items()}


def header_bits(setting: Setting, content: bytes) -> int:
    """Bits of a file that are no coded pixels."""
    kind = conventional if setting.method in SUFFIXES else container
    return 8 * kind.header_bytes(content)


def load_guide(tower, *, layers: Sequence[int], grid: int, k: float, levels: int = 3) -> Guide:
    """The settings' `guidance` section, whose `tower` is a CLIP's folder, as a function. One level means no maps."""
    if levels == 1:
        return lambda pictures: [None] * len(pictures)
    from components.codec.guidance import guide
    from components.vision import load_tower

    opened = load_tower(tower)
    return lambda pictures: guide(opened, pictures, grid, k, layers, levels)


def portions(names: Pictures | Files) -> Iterator[list[str]]:
    """Names that are coded together, in order."""
    ordered = list(names)
    for start in range(0, len(ordered), PORTION):
        yield ordered[start : start + PORTION]
