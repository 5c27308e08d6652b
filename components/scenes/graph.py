"""The scene graph: what stands where, drawn from a seed.

A scene is a pure function of (seed, split, style, size, detail). Splits and styles are separate streams of random
numbers, so that train, validation and test never share a scene; so are scenes of another detail.
"""

from dataclasses import asdict, dataclass
from math import hypot
from typing import Any

import numpy as np

from components.scenes.styles import STYLES as LOOKS
from components.scenes.styles import Style
from components.scenes.world import COLOURS, DIGITS, KINDS, SHAPES, SPLITS, STYLES, TEXTURES, TINTS, WORDS

NORMAL_SIZE = 128
MARGIN = 2.0


@dataclass(frozen=True)
class Obj:
    """A shape: centre (cx, cy) and diameter in pixels of the image, angle in degrees, opacity in 0..1."""

    shape: str
    colour: str
    texture: str
    size: str
    cx: float
    cy: float
    diameter: float
    angle: float
    opacity: float
    period: float
    stripe_degrees: float


@dataclass(frozen=True)
class Text:
    """A large digit or word: its box (left, top, right, bottom) in pixels, and how it is set."""

    kind: str
    value: str
    font: str
    height: int
    left: float
    top: float
    right: float
    bottom: float
    light: bool


@dataclass(frozen=True)
class Scene:
    """Everything that can be asked about an image, and everything needed to draw it."""

    seed: int
    split: str
    style: str
    side: int
    kind: str
    tint: str
    objects: tuple[Obj, ...]
    text: Text | None
    background_seed: int
    detail: int = 1
    """How many scenes of ordinary detail would stand side by side in it: things are so much smaller, and more."""

    @property
    def largest(self) -> Obj | None:
        """The one large object, if the scene has one."""
        return next((obj for obj in self.objects if obj.size == "large"), None)

    def to_json(self) -> dict:
        """The graph as plain dictionaries and lists; an ordinary scene's does not name its detail."""
        graph = asdict(self)
        if self.detail == 1:
            del graph["detail"]
        return graph


def sample_scene(
    seed: int, split: str = "train", style: str = "train", size: int = NORMAL_SIZE, detail: int = 1
) -> Scene:
    """Draw the scene of a seed.

    With `detail` 1 a larger scene is the same scene in more pixels. With 2 at 256 pixels, or 4 at 512, objects, text
    and textures have the pixels that they have at 128, and there are `detail` times as many small objects.

    Raises ValueError for an unknown split or style, a negative seed, a size outside 64..512 pixels, or a detail below 1
    or so high that things are smaller than in an ordinary scene of 64 pixels.
    """
    check_drawing("scene", seed, split, style, size)
    if detail < 1 or size / detail < 64:
        raise ValueError(f"a scene needs, at {size} pixels, a detail of 1 to {size // 64}")
    stream = [] if detail == 1 else [detail]
    rng = np.random.default_rng([20250611, SPLITS.index(split), STYLES.index(style), seed, *stream])
    look = LOOKS[style]
    scale = size / NORMAL_SIZE / detail
    taken: list[tuple[float, float, float, float]] = []
    text = _text(rng, look, size, scale, taken) if rng.random() < 0.65 else None
    objects = _objects(rng, look, size, detail, taken)
    return Scene(
        seed=seed,
        split=split,
        style=style,
        side=size,
        kind=str(rng.choice(KINDS)),
        tint=str(rng.choice(TINTS)),
        objects=tuple(objects),
        text=text,
        background_seed=int(rng.integers(2**31)),
        detail=detail,
    )


def check_drawing(what: str, seed: int, split: str, style: str, size: int) -> None:
    """Raise ValueError for an unknown split or style, a negative seed, or a size outside 64..512 pixels."""
    if split not in SPLITS or style not in STYLES:
        raise ValueError(f"no {what}s of split {split!r} in style {style!r}")
    if seed < 0 or not 64 <= size <= 512:
        raise ValueError(f"a {what} needs a seed of at least 0 and a size of 64 to 512 pixels")


def draw_surface(rng: np.random.Generator, look: Style, scale: float, least_opacity: float) -> dict[str, Any]:
    """What an `Obj` looks like, as its fields, but for shape and colour; lengths are `scale` times the look's."""
    return {
        "texture": str(rng.choice(TEXTURES)),
        "angle": float(rng.uniform(-15, 15)),
        "opacity": float(rng.uniform(least_opacity, 1.0)),
        "period": float(rng.uniform(*look.texture_period)) * scale,
        "stripe_degrees": float(rng.choice(look.stripe_degrees)),
    }


def _text(rng, look, size, scale, taken) -> Text:
    """Choose a digit or a word and a place for its box."""
    kind = "digit" if rng.random() < 0.5 else "word"
    value = str(rng.choice(DIGITS if kind == "digit" else WORDS))
    height = round((rng.uniform(30, 38) if kind == "digit" else rng.uniform(22, 27)) * scale)
    width = height * (0.68 if kind == "digit" else 0.68 * len(value))
    left = rng.uniform(2, size - 2 - width)
    top = rng.uniform(2, size - 2 - height)
    taken.append((left, top, left + width, top + height))
    font = str(rng.choice(look.fonts))
    return Text(kind, value, font, height, left, top, left + width, top + height, bool(rng.random() < 0.5))


def _objects(rng, look, size, detail, taken) -> list[Obj]:
    """A large object in most scenes, then two to five small ones that favour one shape and one colour.

    In a scene of more detail there are so many times as many small ones.
    """
    scale = size / NORMAL_SIZE / detail
    favoured_shape, favoured_colour = str(rng.choice(SHAPES)), str(rng.choice(COLOURS))
    wanted = (["large"] if rng.random() < 0.7 else []) + ["small"] * int(rng.integers(2 * detail, 5 * detail + 1))
    objects = []
    for name in wanted:
        shape = favoured_shape if rng.random() < 0.35 else str(rng.choice(SHAPES))
        colour = favoured_colour if rng.random() < 0.3 else str(rng.choice(COLOURS))
        diameter = (rng.uniform(30, 38) if name == "large" else rng.uniform(13, 17)) * scale
        place = _place(rng, look.layout, size, detail, diameter, taken)
        if place is None:
            continue
        cx, cy = place
        half = diameter / 2
        taken.append((cx - half, cy - half, cx + half, cy + half))
        objects.append(
            Obj(
                shape=shape,
                colour=colour,
                size=name,
                cx=cx,
                cy=cy,
                diameter=diameter,
                **draw_surface(rng, look, scale, least_opacity=0.65),
            )
        )
    return objects


def _place(rng, layout, size, detail, diameter, taken) -> tuple[float, float] | None:
    """A free centre: anywhere (`scattered`), or near one of five rows (`rows`); None if the scene is full.

    In a scene of more detail there are so many times as many rows.
    """
    rows = 5 * detail
    half = diameter / 2 + 1
    for _ in range(40):
        cx, cy = rng.uniform(half, size - half, 2)
        if layout == "rows":
            row = round(cy / size * rows - 0.5) + 0.5
            cy = float(np.clip(row / rows * size + rng.normal(0, size / 64 / detail), half, size - half))
        box = (cx - half - MARGIN, cy - half - MARGIN, cx + half + MARGIN, cy + half + MARGIN)
        if not any(box[0] < t[2] and t[0] < box[2] and box[1] < t[3] and t[1] < box[3] for t in taken):
            return float(cx), float(cy)
    return None


def quarter(obj: Obj, side: int) -> str:
    """Which quarter of the image an object's centre is in."""
    return f"{'top' if obj.cy < side / 2 else 'bottom'} {'left' if obj.cx < side / 2 else 'right'}"


def side_of(one: Obj, other: Obj) -> str | None:
    """On which side of `other` stands `one`; None where the direction is too near a diagonal to name."""
    dx, dy = one.cx - other.cx, one.cy - other.cy
    if hypot(dx, dy) == 0 or not (abs(dx) > 1.6 * abs(dy) or abs(dy) > 1.6 * abs(dx)):
        return None
    if abs(dx) > abs(dy):
        return "left" if dx < 0 else "right"
    return "above" if dy < 0 else "below"
