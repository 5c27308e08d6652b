"""The `.cotam` container: a header of 14 to 16 bytes, then one entropy-coded stream (docs/bitstream.md).

Reading a header needs neither torch nor the codec, so that `cotam inspect` answers at once. Everything has one way to
be written, so that two different headers never mean the same.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from components.codec.config import latent_size
from components.errors import CotamError

MAGIC = b"\xc0\x7a"
VIDEO_MAGIC = b"\xc0\x7b"  # of `video_container`
VERSION = 2
NEWEST = 4  # versions 3 and 4 are version 2 with a map whose levels go to 2 and to 3 (level_map.py)
MAXIMUM_PIXELS = 100_000_000
MAXIMUM_SIDE = 0xFFFF
MAXIMUM_CELLS = 255  # per side of a level map
FREE_GRIDS = (None, (8, 8), (4, 4))  # their place is the header's map form; any other grid is form 3 and two bytes

_OLD_MAGIC = b"\x89CTM"  # of version 1
_START_BYTES = 12  # up to and with the checksum
_SIZE_BYTES = (2, 3, 4)  # of width and height together, by size form
_SHORTEST_PAYLOAD = 8  # the state that the entropy coder always writes


@dataclass(frozen=True)
class Header:
    """What a stream says of itself.

    Attributes:
        model_id: eight hexadecimal digits, which codec made it.
        width, height: of the image, in pixels.
        quality: the base quality, 0 to 9.
        grid: rows and columns of its level map; None if it has none.
        check: CRC-32 over the fields above and the decoded latent.
        steps: how far from zero the levels of the map go, 1 to 3.
    """

    model_id: str
    width: int
    height: int
    quality: int
    grid: tuple[int, int] | None
    check: int = 0
    steps: int = 1

    @property
    def fields(self) -> bytes:
        """The bytes that the checksum covers: all but itself, with zeros in place of the header's own check."""
        forms = _size_form(self.width, self.height) << 6 | _map_form(self.grid) << 4
        version = VERSION + self.steps - 1
        start = MAGIC + bytes([version << 4 | self.quality, forms]) + bytes.fromhex(self.model_id)
        return start + _size_bytes(self.width, self.height) + _grid_bytes(self.grid)

    def checksum(self, *decoded: bytes) -> int:
        """CRC-32 over the fields and what was decoded."""
        value = zlib.crc32(self.fields)
        for part in decoded:
            value = zlib.crc32(part, value)
        return value

    @property
    def latent_size(self) -> tuple[int, int]:
        """Rows and columns of the latent."""
        return latent_size(self.height, self.width)


def _size_form(width: int, height: int) -> int:
    """The shortest form: 0, a side has up to 256 pixels; 1, up to 4096; 2, up to 65535."""
    longest = max(width, height)
    return 0 if longest <= 256 else 1 if longest <= 4096 else 2


def _size_bytes(width: int, height: int) -> bytes:
    count = _SIZE_BYTES[_size_form(width, height)]
    return (width - 1 | height - 1 << 4 * count).to_bytes(count, "little")


def _map_form(grid: tuple[int, int] | None) -> int:
    return FREE_GRIDS.index(grid) if grid in FREE_GRIDS else 3


def _grid_bytes(grid: tuple[int, int] | None) -> bytes:
    return b"" if grid in FREE_GRIDS else bytes(grid)


def seal(header: bytes) -> bytes:
    """A header with its own check in the lower half of byte 3: the rest of it as one number, modulo 13.

    A power of two is no multiple of 13: one flipped bit is always seen.
    """
    bare = header[3] & 0xF0
    check = int.from_bytes(header[:3] + bytes([bare]) + header[4:], "big") % 13
    return header[:3] + bytes([bare | check]) + header[4:]


def check_size(width: int, height: int, maximum_pixels: int = MAXIMUM_PIXELS) -> None:
    """Refuse sizes that cannot be coded.

    Raises:
        CotamError: empty, longer than 65535 on a side, or more pixels than allowed.
    """
    if min(width, height) < 1:
        raise CotamError("The image is empty; give one with at least one pixel.")
    if max(width, height) > MAXIMUM_SIDE:
        raise CotamError(f"The image is {width} x {height}; a side may have at most {MAXIMUM_SIDE} pixels.")
    if width * height > maximum_pixels:
        raise CotamError(f"The image is {width} x {height}, more than {maximum_pixels} pixels; make it smaller first.")


def pack(header: Header, payload: bytes, check: int) -> bytes:
    """A whole stream."""
    fields = header.fields
    return seal(fields[:8] + check.to_bytes(4, "little") + fields[8:]) + payload


def unpack(stream: bytes, maximum_pixels: int = MAXIMUM_PIXELS) -> tuple[Header, bytes]:
    """Header and payload of a stream, after every check that needs no decoding.

    Raises:
        CotamError: it is no `.cotam` stream, of another version, too large, damaged, or cut short.
    """
    header, length = _read_header(stream)
    if header.width * header.height > maximum_pixels:
        raise CotamError(
            f"The stream declares {header.width} x {header.height}, more than {maximum_pixels} pixels; "
            "if you trust it, allow more (--maximum-pixels)."
        )
    payload = stream[length:]
    if len(payload) < _SHORTEST_PAYLOAD or len(payload) % 4:
        raise CotamError("The stream is truncated; copy it again.")
    return header, payload


def _read_header(stream: bytes) -> tuple[Header, int]:
    """The header at the start of a stream, and its length."""
    version, quality = divmod(stream[2], 16) if len(stream) > 2 else (VERSION, 0)
    if stream.startswith(_OLD_MAGIC):
        version = 1
    elif stream.startswith(VIDEO_MAGIC):
        raise CotamError("This is a video, a .cotamv file, not an image.")
    elif not stream.startswith(MAGIC):
        raise CotamError("This is not a .cotam stream; make one with `cotam encode`.")
    if version < VERSION:
        raise CotamError(f"The stream has version {version}, this program reads {VERSION}; encode the image again.")
    if version > NEWEST:
        raise CotamError(f"The stream has version {version}, this program reads {NEWEST}; update the program.")
    if len(stream) < _START_BYTES:
        raise CotamError("The stream is truncated: not even its header is whole; copy it again.")
    size_form, map_form = stream[3] >> 6, stream[3] >> 4 & 3
    if size_form == 3 or quality > 9:
        raise CotamError("The stream is damaged (its header has no meaning); copy it again.")
    grid_at = _START_BYTES + _SIZE_BYTES[size_form]
    length = grid_at + (2 if map_form == 3 else 0)
    if len(stream) < length:
        raise CotamError("The stream is truncated: not even its header is whole; copy it again.")
    if seal(stream[:length]) != stream[:length]:
        raise CotamError("The stream is damaged (its header fails its check); copy it again.")
    bits = 4 * _SIZE_BYTES[size_form]
    sides = int.from_bytes(stream[_START_BYTES:grid_at], "little")
    width, height = (sides & (1 << bits) - 1) + 1, (sides >> bits) + 1
    grid = FREE_GRIDS[map_form] if map_form < 3 else tuple(stream[grid_at:length])
    canonical = size_form == _size_form(width, height) and map_form == _map_form(grid)
    canonical = canonical and (version == VERSION or grid is not None)
    if not canonical or max(width, height) > MAXIMUM_SIDE or (grid is not None and min(grid) < 1):
        raise CotamError("The stream is damaged (its header has no meaning); copy it again.")
    check = int.from_bytes(stream[8:_START_BYTES], "little")
    return Header(stream[4:8].hex(), width, height, quality, grid, check, version - VERSION + 1), length


def header_bytes(stream: bytes) -> int:
    """Length of a stream's own header.

    Raises:
        CotamError: it is no `.cotam` stream, or its header is damaged.
    """
    return _read_header(stream)[1]


def read_stream(path: str | Path, maximum_pixels: int = MAXIMUM_PIXELS) -> bytes:
    """The bytes of a `.cotam` file, after every check that needs no decoding; any other file is not read on.

    Raises:
        CotamError: it cannot be read, or `unpack` refuses it.
    """
    return read_checked(path, MAGIC, lambda stream: unpack(stream, maximum_pixels))


def read_checked(path: str | Path, magic: bytes, check: Callable[[bytes], object]) -> bytes:
    """The bytes of a file that `check` accepts; one that does not begin with `magic` is not read on.

    Raises:
        CotamError: it cannot be read, or `check` raised it.
    """
    try:
        with open(path, "rb") as file:
            stream = file.read(len(_OLD_MAGIC))
            if stream.startswith(magic):
                stream += file.read()
    except FileNotFoundError:
        raise CotamError(f"{path} does not exist.") from None
    except IsADirectoryError:
        raise CotamError(f"{path} is a folder, not a {'.cotam' if magic == MAGIC else '.cotamv'} file.") from None
    except OSError as error:
        raise CotamError(f"{path} cannot be read ({error.strerror}).") from None
    try:
        check(stream)
    except CotamError as error:
        raise CotamError(f"{path}: {error}") from None
    return stream
