"""Which quality an image is seen at, and where it is cut: pure functions of (seed, pass, image).

Nothing here depends on what was drawn before, so that a resumed training, or one spread over processes, draws the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

GUIDED_SHARE = 0.75
"""CoTAM's streams always carry a map; the rest is seen plain, so that the adapter also serves a stream without one."""


@dataclass(frozen=True)
class Draw:
    """How one image is seen in one pass."""

    quality: int
    guided: bool


def draw(seed: int, epoch: int, image: int, qualities: Sequence[int]) -> Draw:
    """Quality and guidance of image number `image` in pass `epoch`.

    Args:
        qualities: one is drawn, each entry alike; what stands there twice comes twice as often.
    """
    random = _generator(seed, epoch, image)
    return Draw(int(random.choice(np.asarray(qualities))), bool(random.random() < GUIDED_SHARE))


def cut(image: Image.Image, size: int, seed: int, number: int) -> Image.Image:
    """A square of the image: its short side becomes `size`, and the place along the long side is drawn.

    Codec and tower then work on squares of one size, in batches. An image of that size already is left untouched.
    """
    if image.size == (size, size):
        return image
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    place = _generator(seed, 0, number).random()
    left, top = round(place * (width - size)), round(place * (height - size))
    return resized.crop((left, top, left + size, top + size))


def _generator(seed: int, epoch: int, image: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch, image])))
