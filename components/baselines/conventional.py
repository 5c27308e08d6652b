"""JPEG, WebP and AVIF as Pillow writes them at their best: optimised Huffman tables, WebP's slowest method, AVIF's
slowest but one (libaom; the slowest takes seconds for a small image).

A small image's file is mostly header, which says nothing about a format's coding. `header_bytes` tells the two apart.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from components.errors import CotamError

_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 2  # a marker's code; bytes of the last marker
_AVIF_SPEED = 1
_WEBP_HEADER = 12 + 8 + 10  # RIFF and WEBP, the chunk's name and size, VP8's frame header


def jpeg_encode(image: NDArray[np.uint8], quality: int) -> bytes:
    """Baseline JPEG, 4:2:0, of a uint8 (H, W, 3) image at Pillow's quality 0 to 100."""
    return _save(image, format="jpeg", quality=quality, optimize=True)


def webp_encode(image: NDArray[np.uint8], quality: int) -> bytes:
    """Lossy WebP of a uint8 (H, W, 3) image at quality 0 to 100."""
    return _save(image, format="webp", quality=quality, method=6)


def avif_encode(image: NDArray[np.uint8], quality: int) -> bytes:
    """AVIF, 4:2:0, of a uint8 (H, W, 3) image at quality 0 to 100; the same whatever the number of processors."""
    return _save(image, format="avif", quality=quality, speed=_AVIF_SPEED, max_threads=1)


def decode(content: bytes) -> NDArray[np.uint8]:
    """A JPEG, WebP or AVIF file as uint8 (H, W, 3).

    Raises:
        CotamError: it is neither, or damaged.
    """
    try:
        with Image.open(io.BytesIO(content), formats=("jpeg", "webp", "avif")) as image:
            return np.array(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise CotamError(f"This is no whole JPEG, WebP or AVIF file ({error}); make it again.") from None


def header_bytes(content: bytes) -> int:
    """Bytes of a file made here that are no coded pixels: containers, markers and tables; of AVIF all but `mdat`."""
    if content[4:8] == b"ftyp":
        return len(content) - _box_size(content, b"mdat") + 8
    if content[:4] == b"RIFF":
        return _WEBP_HEADER
    position = 2
    while content[position + 1] != _START_OF_SCAN:
        position += 2 + int.from_bytes(content[position + 2 : position + 4])
    return position + 2 + int.from_bytes(content[position + 2 : position + 4]) + _END_OF_IMAGE


def _box_size(content: bytes, wanted: bytes) -> int:
    """Bytes of the first box of that name, its head of eight bytes included."""
    position = 0
    while position < len(content):
        size = int.from_bytes(content[position : position + 4])
        if content[position + 4 : position + 8] == wanted:
            return size
        position += max(8, size)
    raise CotamError(f"This AVIF file has no {wanted.decode()}; make it again.")


def _save(image: NDArray[np.uint8], **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, **options)
    return buffer.getvalue()
