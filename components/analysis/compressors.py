"""What compresses: any of our codecs, or JPEG, WebP and AVIF as Pillow writes them. Rates are sizes of real files."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from components.baselines import conventional
from components.codec import Codec
from components.errors import CotamError
from components.evaluation.streams import Setting

Picture = NDArray[np.uint8]
"""(H, W, 3), sRGB."""

OURS = (0, 2, 4)
"""Qualities of our codecs, of 0 to 9, where nothing else is asked for."""
CONVENTIONAL = {"jpeg": (5, 20, 50), "webp": (5, 20, 50), "avif": (10, 30, 60)}
"""The same for the others, of 0 to 100."""


@dataclass(frozen=True)
class Choice:
    """A codec as the user names it, and the qualities to look at, from few bits to many.

    Attributes:
        source: `jpeg`, `webp`, `avif`, or a codec's folder or name.
        name: what figures call it.
        qualities: sorted.
    """

    source: str
    name: str
    qualities: tuple[int, ...]

    @property
    def settings(self) -> list[Setting]:
        """One per quality."""
        return [Setting(self.name, str(quality)) for quality in self.qualities]


def parse_choice(text: str, qualities: Sequence[int] | None = None) -> Choice:
    """Read `NAME` or `NAME:Q,Q,Q`.

    Args:
        text: what the user wrote.
        qualities: for a name without qualities of its own; None: the defaults.

    Raises:
        CotamError: a quality that the codec cannot have.
    """
    named, _, own = text.rpartition(":") if re.search(r":\d+(,\d+)*$", text) else (text, "", "")
    kind = named.lower()
    chosen = own.split(",") if own else qualities or CONVENTIONAL.get(kind, OURS)
    chosen = [int(quality) for quality in chosen]
    top = 100 if kind in CONVENTIONAL else 9
    for quality in chosen:
        if not 0 <= quality <= top:
            raise CotamError(f"{named} has no quality {quality}; choose 0 (fewest bits) to {top}.")
    name = kind if kind in CONVENTIONAL else named.rstrip("/").rsplit("/", 1)[-1]
    return Choice(kind if kind in CONVENTIONAL else named, name, tuple(sorted(set(chosen))))


def parse_choices(texts: Sequence[str], qualities: Sequence[int] | None = None) -> list[Choice]:
    """Several of them.

    Raises:
        CotamError: as `parse_choice`, or two would go by one name.
    """
    choices = [parse_choice(text, qualities) for text in texts]
    names = [choice.name for choice in choices]
    for name in names:
        if names.count(name) > 1:
            raise CotamError(f"Two codecs are called {name}; write it once, with all its qualities: {name}:Q,Q,Q.")
    return choices


@dataclass(frozen=True)
class Coded:
    """Bits of each whole file, and what is decoded from it."""

    bits: list[int]
    pictures: list[Picture]


class Compressors:
    """The chosen codecs, opened once per process."""

    def __init__(self, choices: Sequence[Choice]):
        """Raises CotamError: there is no such codec, it is damaged, or it has fewer qualities than are asked for."""
        self._sources = {choice.name: choice.source for choice in choices}
        for choice in choices:
            if choice.source in CONVENTIONAL:
                if choice.source == "avif":
                    conventional.require_avif()
                continue
            top = self._codec(choice.source).config.qualities - 1
            if choice.qualities[-1] > top:
                raise CotamError(f"{choice.name} has no quality {choice.qualities[-1]}; choose 0 to {top}.")

    def code(self, setting: Setting, pictures: Sequence[Picture]) -> Coded:
        """Encode and decode."""
        source, quality = self._sources[setting.method], int(setting.quality)
        if source in CONVENTIONAL:
            files = [conventional.ENCODERS[source](picture, quality) for picture in pictures]
            decoded = [conventional.decode(content) for content in files]
        else:
            codec = self._codec(source)
            files = codec.encode(list(pictures), quality)
            decoded = [one.image for one in codec.decode(files)]
        return Coded([8 * len(content) for content in files], decoded)

    @staticmethod
    @cache
    def _codec(source: str) -> Codec:
        return Codec.from_pretrained(source)

