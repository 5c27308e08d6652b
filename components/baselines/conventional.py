"""JPEG, WebP and AVIF as Pillow writes them: optimised Huffman tables, WebP's slowest method.

A small image's file is mostly header, which says nothing about a format's coding. `header_bytes` tells the two apart.
"""

import io
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError, features

from components.errors import CotamError

_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 2  # a marker's code; bytes of the last marker
_WEBP_HEADER = 12 + 8 + 10  # RIFF and WEBP, the chunk's name and size, VP8's frame header
_SEQUENCE_HEADER, _TEMPORAL_DELIMITER = 1, 2  # types of AV1's units that hold no coded pixels


def jpeg_encode(image: NDArray[np.uint8], quality: int) -> bytes:
    """Baseline JPEG, 4:2:0, of a uint8 (H, W, 3) image at Pillow's quality 0 to 100."""
    return _save(image, format="jpeg", quality=quality, optimize=True)


def webp_encode(image: NDArray[np.uint8], quality: int) -> bytes:
    """Lossy WebP of a uint8 (H, W, 3) image at quality 0 to 100."""
    return _save(image, format="webp", quality=quality, method=6)


def avif_encode(image: NDArray[np.uint8], quality: int) -> bytes:
    """AVIF, 4:2:0, of a uint8 (H, W, 3) image at quality 0 to 100.

    At speed 5 of 0 to 10: a tenth of the time of the best one, files 2 % larger. One thread: the bytes do not depend
    on the number of processors.

    Raises:
        CotamError: this Pillow has no AVIF.
    """
    require_avif()
    return _save(image, format="avif", quality=quality, speed=5, max_threads=1)


ENCODERS: dict[str, Callable[[NDArray[np.uint8], int], bytes]] = {
    "jpeg": jpeg_encode,
    "webp": webp_encode,
    "avif": avif_encode,
}
"""By the name that results give them."""


def require_avif() -> None:
    """Raises CotamError: this Pillow was built without AVIF."""
    if not features.check("avif"):
        raise CotamError("This Pillow was built without AVIF; install Pillow's own wheel, or leave AVIF out.")


def decode(content: bytes) -> NDArray[np.uint8]:
    """A JPEG, WebP or AVIF file as uint8 (H, W, 3).

    Raises:
        CotamError: it is none of them, or damaged.
    """
    try:
        with Image.open(io.BytesIO(content), formats=tuple(ENCODERS)) as image:
            return np.array(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise CotamError(f"This is no whole JPEG, WebP or AVIF file ({error}); make it again.") from None


def header_bytes(content: bytes) -> int:
    """Bytes of a file from one of the encoders that are no coded pixels: containers, markers and tables."""
    if content[:4] == b"RIFF":
        return _WEBP_HEADER
    if content[4:8] == b"ftyp":
        return _avif_header_bytes(content)
    position = 2
    while content[position + 1] != _START_OF_SCAN:
        position += 2 + int.from_bytes(content[position + 2 : position + 4])
    return position + 2 + int.from_bytes(content[position + 2 : position + 4]) + _END_OF_IMAGE


def _avif_header_bytes(content: bytes) -> int:
    """All boxes but the media data, and in that the AV1 units before the frame (ISO 23008-12; AV1, section 5.3)."""
    position, pixels = 0, 0
    while position < len(content):
        size = int.from_bytes(content[position : position + 4])
        if content[position + 4 : position + 8] == b"mdat":
            units = _av1_units(content[position + 8 : position + size])
            pixels += sum(length for kind, length in units if kind not in (_SEQUENCE_HEADER, _TEMPORAL_DELIMITER))
        position += size
    return len(content) - pixels


def _av1_units(data: bytes) -> Iterator[tuple[int, int]]:
    """(type, bytes) of the open bitstream units of an AV1 image; one without a size is the last."""
    position = 0
    while position < len(data):
        head = data[position]
        start = position + (2 if head & 4 else 1)
        size, shift = len(data) - start, 0
        if head & 2:  # the size follows, seven bits a byte, the lowest first
            size = 0
            while True:
                byte = data[start]
                size, shift, start = size | (byte & 127) << shift, shift + 7, start + 1
                if not byte & 128:
                    break
        yield head >> 3 & 15, start + size - position
        position = start + size


def _save(image: NDArray[np.uint8], **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, **options)
    return buffer.getvalue()
