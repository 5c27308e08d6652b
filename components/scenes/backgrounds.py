"""Five backgrounds with the statistics of natural ones: leaves, waves, blocks, clouds and dunes.

Each is a pattern in about [-1, 1] that shades a tint, with a little 1/f noise on top. The pattern is the scene's kind
and the tint its dominant colour, so neither tells the other. Leaves follow the dead-leaves model (Lee, Mumford and
Huang, 2001): discs that cover each other, with radii of a power law.
"""

from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw

SHADE = 0.16
NOISE = 0.012


def background(
    kind: str, tint: tuple[int, int, int], seed: int, side: int, period: tuple[float, float], detail: int = 1
) -> np.ndarray:
    """Draw a background: float64 (side, side, 3) in 0..255.

    `period` is the range of the pattern's period in pixels of 128; `detail` such patterns stand side by side.
    """
    rng = np.random.default_rng(seed)
    pattern = PATTERNS[kind](rng, side, rng.uniform(*period) * side / 128 / detail, detail)
    pattern = pattern + NOISE / SHADE * _pink_noise(rng, side, detail)
    drift = 0.35 * _clouds(rng, side, cells=2 * detail)
    return np.clip(np.asarray(tint, float) * (1 + SHADE * (pattern + drift))[..., None], 0, 255)


def _grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    """x (1, side) and y (side, 1), which broadcast."""
    places = np.arange(side, dtype=float)
    return places[None], places[:, None]


def _leaves(rng, side, period, detail) -> np.ndarray:
    canvas = Image.new("L", (side, side), 128)
    draw = ImageDraw.Draw(canvas)
    for _ in range(90 * detail**2):
        radius = period * 0.35 * (1 - rng.random()) ** -0.5
        radius = min(radius, side / 5 / detail)
        x, y = rng.uniform(0, side, 2)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=int(rng.integers(0, 256)))
    return np.asarray(canvas, float) / 127.5 - 1


def _waves(rng, side, period, detail) -> np.ndarray:
    x, y = _grid(side)
    bend = 0.25 * period * np.sin(2 * np.pi * (x / (4 * period) + rng.random()))
    return 0.8 * np.sin(2 * np.pi * ((y + bend) / period + rng.random()))


def _blocks(rng, side, period, detail) -> np.ndarray:
    canvas = np.empty((side, side))
    across = max(2, round(side / period))
    edges = np.linspace(0, side, across + 1).round().astype(int)
    for left, right in pairwise(edges):
        top = 0
        while top < side:
            bottom = min(side, top + round(period * rng.uniform(0.6, 2.0)))
            canvas[top:bottom, left:right] = rng.uniform(-1, 1)
            top = bottom
    return canvas


def _clouds(rng, side, cells) -> np.ndarray:
    coarse = Image.fromarray(rng.normal(0, 0.6, (cells, cells)).astype(np.float32), mode="F")
    return np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), float)


def _dunes(rng, side, period, detail) -> np.ndarray:
    x, y = _grid(side)
    slope = rng.choice([-1.0, 1.0]) * rng.uniform(0.6, 1.0)
    phase = (y + slope * x + period * _clouds(rng, side, cells=3 * detail)) / (2 * period) + rng.random()
    return 1.6 * (phase % 1.0) - 0.8


def _pink_noise(rng, side, detail) -> np.ndarray:
    octaves = [_clouds(rng, side, cells=cells * detail) * 4 / cells**0.5 for cells in (16, 32, 64)]
    return sum(octaves) + rng.normal(0, 0.5, (side, side))


PATTERNS = {
    "forest": _leaves,
    "sea": _waves,
    "city": _blocks,
    "sky": lambda rng, side, period, detail: _clouds(rng, side, cells=5 * detail),
    "desert": _dunes,
}
