"""From a scene graph to pixels: background, then shapes with their textures, then large text."""

from math import cos, pi, sin, tau

import numpy as np
from PIL import Image, ImageDraw

from components.scenes.backgrounds import background
from components.scenes.graph import Obj, Scene, Text
from components.scenes.styles import STYLES, font

OVERSAMPLING = 4
TEXTURE_CONTRAST = 0.55


def render(scene: Scene) -> np.ndarray:
    """Draw a scene: uint8 (side, side, 3), sRGB. The same bytes in every process."""
    look = STYLES[scene.style]
    canvas = background(
        scene.kind, look.tints[scene.tint], scene.background_seed, scene.side, look.background_period, scene.detail
    )
    for obj in scene.objects:
        left, top, cover, shade = _stamp(obj)
        colour = np.asarray(look.colours[obj.colour], float)
        inside, cover, shade = _crop(canvas, left, top, cover, shade)
        # A texture alternates the colour with a shade towards mid-grey, so that a black shape shows it too.
        painted = colour + (128 - colour) * (TEXTURE_CONTRAST * shade)[..., None]
        inside += obj.opacity * cover[..., None] * (painted - inside)
    if scene.text:
        ink = 250.0 if scene.text.light else 5.0
        left, top, cover = _lettering(scene.text)
        inside, cover = _crop(canvas, left, top, cover)
        inside += cover[..., None] * (ink - inside)
    return np.rint(np.clip(canvas, 0, 255)).astype(np.uint8)


def object_mask(scene: Scene) -> np.ndarray:
    """Where objects and text stand: bool (side, side), true where they cover at least half of a pixel."""
    mask = np.zeros((scene.side, scene.side))
    for obj in scene.objects:
        left, top, cover, _ = _stamp(obj)
        inside, cover = _crop(mask, left, top, cover)
        np.maximum(inside, cover, out=inside)
    if scene.text:
        inside, cover = _crop(mask, *_lettering(scene.text))
        np.maximum(inside, cover, out=inside)
    return mask >= 0.5


def _crop(canvas: np.ndarray, left: int, top: int, *stamps: np.ndarray):
    """The view of the canvas that a stamp falls on, and the stamps cut to it."""
    height, width = stamps[0].shape
    y0, x0 = max(0, -top), max(0, -left)
    y1, x1 = min(height, canvas.shape[0] - top), min(width, canvas.shape[1] - left)
    return canvas[top + y0 : top + y1, left + x0 : left + x1], *(stamp[y0:y1, x0:x1] for stamp in stamps)


def _stamp(obj: Obj) -> tuple[int, int, np.ndarray, np.ndarray]:
    """A shape's left and top pixel, its cover and its texture's shade, both float64 (h, w) in [0, 1]."""
    side = int(obj.diameter) + 3
    left, top = int(obj.cx - side / 2), int(obj.cy - side / 2)
    large = side * OVERSAMPLING
    x0, y0 = (obj.cx - left) * OVERSAMPLING, (obj.cy - top) * OVERSAMPLING
    mask = Image.new("L", (large, large), 0)
    points = [(x0 + OVERSAMPLING * x, y0 + OVERSAMPLING * y) for x, y in _outline(obj)]
    ImageDraw.Draw(mask).polygon(points, fill=255)
    cover = _shrink(np.asarray(mask, float) / 255)
    return left, top, cover, _shrink(_texture(obj, large, x0, y0))


def _shrink(array: np.ndarray) -> np.ndarray:
    side = array.shape[0] // OVERSAMPLING
    return array.reshape(side, OVERSAMPLING, side, OVERSAMPLING).mean((1, 3))


def _outline(obj: Obj) -> list[tuple[float, float]]:
    """A shape's corners around its centre, in pixels."""
    radius, turn = obj.diameter / 2, obj.angle * pi / 180

    def polar(count: int, radii: tuple[float, ...], start: float) -> list[tuple[float, float]]:
        angles = [start + turn + tau * i / count for i in range(count)]
        return [
            (radius * radii[i % len(radii)] * cos(a), radius * radii[i % len(radii)] * sin(a))
            for i, a in enumerate(angles)
        ]

    if obj.shape == "circle":
        return polar(48, (0.92,), 0.0)
    if obj.shape == "square":
        return polar(4, (1.12,), pi / 4)
    if obj.shape == "triangle":
        return polar(3, (1.12,), -pi / 2)
    if obj.shape == "star":
        return polar(10, (1.12, 0.46), -pi / 2)
    arm, long = 0.3 * radius, radius
    corners = [(arm, long), (arm, arm), (long, arm), (long, -arm), (arm, -arm), (arm, -long)]
    corners += [(-x, -y) for x, y in corners]
    return [(x * cos(turn) - y * sin(turn), x * sin(turn) + y * cos(turn)) for x, y in corners]


def _texture(obj: Obj, large: int, x0: float, y0: float) -> np.ndarray:
    """The texture's shade on the oversampled grid: 0 where the plain colour shows, 1 where it is shaded."""
    if obj.texture == "plain":
        return np.zeros((large, large))
    period = obj.period * OVERSAMPLING
    places = np.arange(large) + 0.5
    x, y = ((places - x0) / period)[None], ((places - y0) / period)[:, None]
    angle = obj.stripe_degrees * pi / 180
    u, v = x * cos(angle) + y * sin(angle), -x * sin(angle) + y * cos(angle)
    if obj.texture == "striped":
        return ((u % 1.0) < 0.5).astype(float)
    if obj.texture == "checked":
        return (((u % 1.0) < 0.5) ^ ((v % 1.0) < 0.5)).astype(float)
    return (((u % 1.0) - 0.5) ** 2 + ((v % 1.0) - 0.5) ** 2 < 0.09).astype(float)


def _lettering(text: Text) -> tuple[int, int, np.ndarray]:
    """A text's left and top pixel and its cover, float64 (h, w) in [0, 1]; fitted into the text's box."""
    face = font(text.font, 96)
    box = face.getbbox(text.value)
    drawn = Image.new("L", (box[2] - box[0], box[3] - box[1]), 0)
    ImageDraw.Draw(drawn).text((-box[0], -box[1]), text.value, font=face, fill=255)
    width, height = round(text.right - text.left), round(text.bottom - text.top)
    fit = min(width / drawn.width, height / drawn.height)
    size = (max(1, round(drawn.width * fit)), max(1, round(drawn.height * fit)))
    cover = np.asarray(drawn.resize(size, Image.Resampling.BOX), float) / 255
    return round(text.left + (width - size[0]) / 2), round(text.top + (height - size[1]) / 2), cover
