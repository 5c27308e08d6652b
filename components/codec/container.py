"""The `.cotam` container: a header of 19 or 21 bytes, then one entropy-coded stream (docs/bitstream.md).

Reading a header needs neither torch nor the codec, so that `cotam inspect` answers at once.
"""

import struct
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

from components.codec.config import STRIDE
from components.errors import CotamError

MAGIC = b"\x89CTM"
VERSION = 1
MAXIMUM_PIXELS = 100_000_000
MAXIMUM_SIDE = 0xFFFF
MAXIMUM_CELLS = 254  # per side of a level map; 255 announces a map that is not square

_FIELDS = struct.Struct("<4sB4sHHBB")
_CHECK = struct.Struct("<I")
HEADER_BYTES = _FIELDS.size + _CHECK.size  # without the size of a map that is not square
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
    """

    model_id: str
    width: int
    height: int
    quality: int
    grid: tuple[int, int] | None
    check: int = 0

    @property
    def fields(self) -> bytes:
        """The bytes that the checksum covers: all but itself, and the size of a map that is not square."""
        code, extra = _grid_code(self.grid)
        packed = _FIELDS.pack(MAGIC, VERSION, bytes.fromhex(self.model_id), self.width, self.height, self.quality, code)
        return packed + extra

    def checksum(self, *decoded: bytes) -> int:
        """CRC-32 over the fields and what was decoded."""
        value = zlib.crc32(self.fields)
        for part in decoded:
            value = zlib.crc32(part, value)
        return value

    @property
    def latent_size(self) -> tuple[int, int]:
        """Rows and columns of the latent."""
        return -(-self.height // STRIDE), -(-self.width // STRIDE)


def _grid_code(grid: tuple[int, int] | None) -> tuple[int, bytes]:
    if grid is None:
        return 0, b""
    rows, columns = grid
    return (rows, b"") if rows == columns else (255, bytes([rows, columns]))


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
    fields = replace(header, check=check).fields
    return fields[: _FIELDS.size] + _CHECK.pack(check) + fields[_FIELDS.size :] + payload


def unpack(stream: bytes, maximum_pixels: int = MAXIMUM_PIXELS) -> tuple[Header, bytes]:
    """Header and payload of a stream, after every check that needs no decoding.

    Raises:
        CotamError: it is no `.cotam` stream, of an unknown version, too large, or cut short.
    """
    if stream[: len(MAGIC)] != MAGIC:
        raise CotamError("This is not a .cotam stream; make one with `cotam encode`.")
    if len(stream) < HEADER_BYTES:
        raise CotamError("The stream is truncated: not even its header is whole; copy it again.")
    _, version, model, width, height, quality, code = _FIELDS.unpack_from(stream)
    if version != VERSION:
        raise CotamError(f"The stream has version {version}, this program reads version {VERSION}; update the program.")
    if quality > 9:
        raise CotamError("The stream is damaged (its header names no quality); copy it again.")
    check_size(width, height, maximum_pixels)
    (check,) = _CHECK.unpack_from(stream, _FIELDS.size)
    start, grid = HEADER_BYTES, None
    if code == 255:
        grid, start = tuple(stream[start : start + 2]), start + 2
    elif code > 0:
        grid = (code, code)
    payload = stream[start:]
    if grid is not None and (len(grid) < 2 or min(grid) < 1 or max(grid) > MAXIMUM_CELLS):
        raise CotamError("The stream is damaged (its level map has no size); copy it again.")
    if len(payload) < _SHORTEST_PAYLOAD or len(payload) % 4:
        raise CotamError("The stream is truncated; copy it again.")
    return Header(model.hex(), width, height, quality, grid, check), payload


def header_bytes(stream: bytes) -> int:
    """Length of a stream's own header, the size of a map that is not square included.

    Raises:
        CotamError: `unpack` refuses it.
    """
    _, payload = unpack(stream)
    return len(stream) - len(payload)


def read_stream(path: str | Path) -> bytes:
    """The bytes of a `.cotam` file, after every check that needs no decoding; any other file is not read on.

    Raises:
        CotamError: it cannot be read, or `unpack` refuses it.
    """
    try:
        with open(path, "rb") as file:
            stream = file.read(HEADER_BYTES)
            if stream.startswith(MAGIC):
                stream += file.read()
    except FileNotFoundError:
        raise CotamError(f"{path} does not exist.") from None
    except IsADirectoryError:
        raise CotamError(f"{path} is a folder, not a .cotam file.") from None
    except OSError as error:
        raise CotamError(f"{path} cannot be read ({error.strerror}).") from None
    try:
        unpack(stream)
    except CotamError as error:
        raise CotamError(f"{path}: {error}") from None
    return stream
