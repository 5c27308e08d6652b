"""Arrays as pictures inside the page: PNG data URIs of images, level maps laid over them, and maps of bits."""

import base64
import io

import numpy as np

RAMP = "cividis"
"""A colour map that is even in lightness and reads the same with any colour vision."""
MORE, FEWER = (230, 159, 0), (0, 114, 178)
ZOOM = 3


def data_uri(image_HWC: np.ndarray) -> str:
    """A uint8 (H, W, 3) image as a PNG data URI."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.asarray(image_HWC, np.uint8)).save(buffer, format="png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def level_overlay(image_HWC: np.ndarray, levels_hw: np.ndarray) -> np.ndarray:
    """The image in grey, with regions of higher quality tinted orange and of lower quality blue.

    Args:
        image_HWC: uint8 (H, W, 3).
        levels_hw: integers (h, w), quality relative to the base quality, on any grid that spans the image.

    Returns:
        uint8 (3 H, 3 W, 3), with a line around each region.
    """
    image = np.repeat(np.repeat(np.asarray(image_HWC, float), ZOOM, 0), ZOOM, 1)
    grey = image.mean(-1, keepdims=True).repeat(3, -1)
    levels = _stretch(np.asarray(levels_hw), image.shape[:2])
    strength = 0.45 * np.minimum(np.abs(levels), 1)[..., None]
    tint = np.where(levels[..., None] > 0, MORE, FEWER)
    out = grey * (1 - strength) + tint * strength
    edge = np.zeros(levels.shape, bool)
    edge[1:] |= levels[1:] != levels[:-1]
    edge[:, 1:] |= levels[:, 1:] != levels[:, :-1]
    edge[:-1] |= edge[1:]
    edge[:, :-1] |= edge[:, 1:]
    out[edge] = 255
    return out.round().astype(np.uint8)


def heat(values_hw: np.ndarray, top: float, size: tuple[int, int]) -> np.ndarray:
    """A map of non-negative numbers in the colours of `RAMP`, from 0 to `top`, stretched to `size` (height, width)."""
    import matplotlib

    scaled = np.clip(np.asarray(values_hw, float) / max(top, 1e-9), 0, 1)
    colours = matplotlib.colormaps[RAMP](scaled)[..., :3]
    return _stretch((255 * colours).round().astype(np.uint8), size)


def ramp_css() -> str:
    """The colours of `heat` as a CSS gradient, for a legend."""
    import matplotlib
    from matplotlib.colors import to_hex

    stops = [to_hex(matplotlib.colormaps[RAMP](place / 6)) for place in range(7)]
    return f"linear-gradient(90deg, {', '.join(stops)})"


def _stretch(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Nearest-neighbour resize of the first two axes."""
    rows = np.arange(size[0]) * values.shape[0] // size[0]
    columns = np.arange(size[1]) * values.shape[1] // size[1]
    return values[rows][:, columns]
