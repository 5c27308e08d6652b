"""What a style fixes: fonts, palettes, texture periods and layout.

Codecs and adapters are trained on the `train` style alone; the benchmarks are drawn in the `bench` style (design,
section 4), as CC3M is not MME. The MLLM has seen both. The fonts are those that matplotlib ships, so that a scene has
the same pixels on every machine.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import ImageFont

RGB = tuple[int, int, int]


@dataclass(frozen=True)
class Style:
    """One look of the world. Periods are in pixels of a 128-pixel image; colours are sRGB, 0..255."""

    fonts: tuple[str, ...]
    colours: dict[str, RGB]
    tints: dict[str, RGB]
    texture_period: tuple[float, float]
    stripe_degrees: tuple[float, ...]
    layout: str
    background_period: tuple[float, float]


STYLES = {
    "train": Style(
        fonts=("DejaVuSans-Bold.ttf", "DejaVuSansMono-Bold.ttf"),
        colours={
            "red": (214, 40, 36),
            "green": (38, 158, 52),
            "blue": (36, 66, 208),
            "yellow": (240, 212, 36),
            "purple": (146, 44, 168),
            "white": (246, 246, 246),
            "black": (14, 14, 14),
        },
        tints={
            "grey": (128, 128, 128),
            "green": (108, 140, 104),
            "blue": (104, 128, 158),
            "brown": (150, 122, 92),
            "pink": (174, 134, 142),
        },
        texture_period=(4.5, 5.5),
        stripe_degrees=(0.0, 90.0),
        layout="scattered",
        background_period=(11.0, 18.0),
    ),
    "bench": Style(
        fonts=("DejaVuSerif-Bold.ttf", "STIXGeneralBol.ttf"),
        colours={
            "red": (196, 24, 52),
            "green": (22, 138, 70),
            "blue": (60, 88, 222),
            "yellow": (226, 196, 20),
            "purple": (126, 60, 186),
            "white": (234, 238, 242),
            "black": (26, 22, 20),
        },
        tints={
            "grey": (118, 120, 124),
            "green": (98, 134, 112),
            "blue": (98, 118, 150),
            "brown": (140, 116, 100),
            "pink": (166, 124, 138),
        },
        texture_period=(4.5, 5.5),
        stripe_degrees=(45.0, 135.0),
        layout="rows",
        background_period=(13.0, 22.0),
    ),
}


@cache
def font(name: str, pixels: int) -> ImageFont.FreeTypeFont:
    """The named font at a height in pixels."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, pixels)
