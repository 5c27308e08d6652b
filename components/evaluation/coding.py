"""One way to encode and decode pictures for all compared methods: the codec, guided or not, JPEG, WebP and AVIF."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from components.baselines import conventional
from components.codec import container
from components.errors import CotamError
from components.evaluation.pictures import Pictures
from components.evaluation.streams import COTAM, SUFFIXES, Files, Setting
from components.files import sha256_tree
from components.weights import resolve

if TYPE_CHECKING:
    import torch

    from components.codec import Codec, Decoded
    from components.evaluation.coding_cache import CodingCache

PORTION = 32  # pictures that are coded together


class Guide:
    """Pictures -> their level maps, int8 (rows, columns) each (paper, section 3.2); or None, no map.

    A map of L levels holds -(L - 1) / 2 to (L - 1) / 2.

    Args:
        tower: a CLIP's folder or name; loaded when the first picture comes.
        settings: `layers`, `grid`, `k`, `scope` and `levels` of the settings' `guidance` section; one level means that
            there are no maps, and no tower is needed.
        device: where the tower looks.
    """

    def __init__(self, tower: Path | str, settings: Mapping[str, Any], device: "torch.device | str" = "cpu"):
        self._name = tower
        self._settings = dict(settings)
        self._device = str(device)

    @cached_property
    def _folder(self) -> Path:
        return resolve(self._name)

    @cached_property
    def _tower(self):
        from components.vision import load_tower

        return load_tower(self._folder).to(self._device)

    @cached_property
    def identity(self) -> str:
        """Changes when the maps would: a hash of the tower's files and of the settings."""
        known = {"levels": 1}
        if self._settings["levels"] > 1:
            known = self._settings | {"tower": sha256_tree(self._folder)}
            if self._device != "cpu":  # sums in another order may make another map
                known["device"] = self._device.partition(":")[0]
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()

    def __call__(self, pictures: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.int8] | None]:
        if self._settings["levels"] == 1:
            return [None] * len(pictures)
        from components.codec.guidance import guide

        return guide(self._tower, pictures, **self._settings)


class Coder:
    """The methods of one codec.

    Args:
        codec: the codec; None: only the conventional ones.
        guide: needed to encode as `cotam`, and for nothing else.
        cache: where streams of the codec are kept and found again; None: everything is coded.

    Attributes:
        encoded: pictures that the codec coded; those that the cache had do not count.
    """

    def __init__(self, codec: "Codec | None", guide: Guide | None = None, cache: "CodingCache | None" = None):
        self.codec = codec
        self.guide = guide
        self.cache = cache
        self.encoded = 0

    def encode(self, setting: Setting, pictures: Pictures) -> Files:
        """A file per picture."""
        quality = int(setting.quality)
        if setting.method in SUFFIXES:
            write = conventional.ENCODERS[setting.method]
            return {name: write(picture, quality) for name, picture in pictures.items()}
        files: Files = {}
        for names in portions(pictures):
            portion = [pictures[name] for name in names]
            guide = self.guide if setting.method == COTAM else None
            files |= zip(names, self._streams(portion, quality, guide), strict=True)
        return files

    def _streams(self, pictures: Sequence[NDArray[np.uint8]], quality: int, guide: Guide | None) -> list[bytes]:
        if self.cache is None:
            self.encoded += len(pictures)
            return self.codec.encode(pictures, quality, guide(pictures) if guide else None)
        before = self.cache.encoded
        streams = self.cache.encode(self.codec, pictures, quality, guide)
        self.encoded += self.cache.encoded - before
        return streams

    def decode(self, files: Files) -> "dict[str, Decoded]":
        """What the codec makes of its files."""
        decoded: dict[str, Decoded] = {}
        for names in portions(files):
            decoded |= zip(names, self.codec.decode([files[name] for name in names]), strict=True)
        return decoded

    def decode_clip(self, name: str, content: bytes) -> "list[Decoded]":
        """The frames of a clip's `.cotamv` file.

        Raises:
            CotamError: it is damaged; the clip is named.
        """
        from components.codec.video import decode_frames

        try:
            return list(decode_frames(self.codec, content))
        except CotamError as error:
            raise CotamError(f"The coded clip {name} cannot be read: {error}") from None

    def pictures(self, setting: Setting, files: Files) -> Pictures:
        """What a person would see of the files."""
        if setting.method in SUFFIXES:
            return {name: conventional.decode(content) for name, content in files.items()}
        return {name: decoded.image for name, decoded in self.decode(files).items()}


def header_bits(setting: Setting, content: bytes) -> int:
    """Bits of a file that are no coded pixels."""
    kind = conventional if setting.method in SUFFIXES else container
    return 8 * kind.header_bytes(content)


def load_guide(
    tower,
    *,
    layers: Sequence[int],
    grid: int,
    k: float,
    scope: str = "hierarchical",
    levels: int = 3,
    device: "torch.device | str" = "cpu",
) -> Guide:
    """The settings' `guidance` section, whose `tower` is a CLIP's folder or name (`components.weights.resolve`)."""
    return Guide(tower, {"layers": list(layers), "grid": grid, "k": k, "scope": scope, "levels": levels}, device)


def portions(names: Pictures | Files) -> Iterator[list[str]]:
    """Names that are coded together, in order."""
    ordered = list(names)
    for start in range(0, len(ordered), PORTION):
        yield ordered[start : start + PORTION]
