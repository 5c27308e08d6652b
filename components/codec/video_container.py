"""The `.cotamv` container: one head for all frames, an index, then the frames' payloads (docs/bitstream.md, Video).

A frame is a `.cotam` stream whose header stands once for all of them; what differs from frame to frame (its payload's
length, its time, its checksum) is its entry in the index. Reading head and index needs neither torch nor the codec.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

from components.codec import container
from components.codec.container import MAXIMUM_PIXELS, Header
from components.codec.container import VIDEO_MAGIC as MAGIC
from components.errors import CotamError

VERSION = 1
MAXIMUM_FRAMES = 0xFFFF
MAXIMUM_VIDEO_PIXELS = 4 * MAXIMUM_PIXELS  # of all frames together: 32 of 3840 x 2160, and half as many again
SUFFIX = ".cotamv"

_CHECK = slice(8, 12)  # where the check of head and index lies, as the checksum does in a .cotam header
_DAMAGED = "The video is damaged ({}); copy it again."


@dataclass(frozen=True)
class Frame:
    """A frame's entry in the index.

    Attributes:
        words: 32-bit words of its payload.
        milliseconds: since the frame before (of the first: since the video's start).
        check: of its `.cotam` stream.
    """

    words: int
    milliseconds: int
    check: int


@dataclass(frozen=True)
class Video:
    """What a stream says of itself.

    Attributes:
        header: what all frames share; its `check` is that of no frame, 0.
        frames: the index, in the order in which the frames are shown.
    """

    header: Header
    frames: tuple[Frame, ...]

    @property
    def pixels(self) -> int:
        """Of all frames together: what bits per pixel count."""
        return len(self.frames) * self.header.width * self.header.height

    @property
    def times(self) -> list[int]:
        """When every frame is shown, in milliseconds since the video's start."""
        return list(accumulate(frame.milliseconds for frame in self.frames))

    def head(self) -> bytes:
        """Head and index."""
        shared = self.header.fields  # magic, version and quality, forms, model id, size, grid
        start = MAGIC + bytes([VERSION << 4 | self.header.quality]) + shared[3:8] + bytes(4) + shared[8:]
        entries = [
            _number(frame.words) + _number(frame.milliseconds) + frame.check.to_bytes(4, "little")
            for frame in self.frames
        ]
        bare = start + len(self.frames).to_bytes(2, "little") + b"".join(entries)
        return bare[:8] + zlib.crc32(bare).to_bytes(4, "little") + bare[12:]


def _number(value: int) -> bytes:
    """Seven bits a byte, lowest first; the highest bit says that another byte follows."""
    groups = bytearray()
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])


def pack(streams: Sequence[bytes], times: Sequence[int]) -> bytes:
    """A video of `.cotam` streams.

    Args:
        streams: of one codec, quality, size and grid, in the order in which they are shown; at least one.
        times: of each, milliseconds since the video's start; they never fall.

    Raises:
        CotamError: there is none, there are too many, they do not belong together, or a map has more levels than the
            head has room to tell.
    """
    if not streams:
        raise CotamError("The video has no frames; give one with at least one.")
    if len(streams) > MAXIMUM_FRAMES:
        raise CotamError(f"The video has {len(streams)} frames; a file holds at most {MAXIMUM_FRAMES}, so sample it.")
    opened = [container.unpack(stream, container.MAXIMUM_SIDE**2) for stream in streams]
    shared = {replace(header, check=0) for header, _ in opened}
    if len(shared) > 1:
        raise CotamError("The frames differ in size, codec, quality or map; a video has one of each.")
    if any(header.steps > 1 for header, _ in opened):
        raise CotamError("A video holds maps of three levels only; set guidance.levels to 3.")
    steps = [later - earlier for earlier, later in zip([0, *times], times, strict=False)]
    if len(steps) != len(streams) or min(steps) < 0 or max(steps) >= 1 << 32:
        raise ValueError("every frame needs a time, and times never fall")
    frames = [
        Frame(len(payload) // 4, step, header.check) for (header, payload), step in zip(opened, steps, strict=True)
    ]
    return Video(shared.pop(), tuple(frames)).head() + b"".join(payload for _, payload in opened)


def unpack(stream: bytes, maximum_pixels: int = MAXIMUM_VIDEO_PIXELS) -> tuple[Video, list[bytes]]:
    """What a video says of itself, and every frame as a `.cotam` stream, after every check that needs no decoding.

    Args:
        stream: a whole file.
        maximum_pixels: of all frames together.

    Raises:
        CotamError: it is no `.cotamv` stream, of another version, too large, damaged, or cut short.
    """
    video, length = _read_head(stream)
    if video.pixels > maximum_pixels:
        raise CotamError(
            f"The video declares {len(video.frames)} frames of {video.header.width} x {video.header.height}, more than "
            f"{maximum_pixels} pixels; if you trust it, allow more (--maximum-pixels)."
        )
    wanted = length + 4 * sum(frame.words for frame in video.frames)
    if len(stream) < wanted:
        raise CotamError(f"The video is truncated: {len(stream)} of {wanted} bytes; copy it again.")
    if len(stream) > wanted:
        raise CotamError(_DAMAGED.format(f"{len(stream) - wanted} bytes follow its last frame"))
    streams = []
    for frame in video.frames:
        payload = stream[length : length + 4 * frame.words]
        streams.append(container.pack(video.header, payload, frame.check))
        length += 4 * frame.words
    return video, streams


def _read_head(stream: bytes) -> tuple[Video, int]:
    """Head and index at the start of a stream, and their length."""
    if stream.startswith(container.MAGIC):
        raise CotamError("This is an image, a .cotam file, not a video.")
    if not stream.startswith(MAGIC):
        raise CotamError("This is not a .cotamv stream; make one with `cotam encode`.")
    reader = _Reader(stream)
    start = reader.take(_CHECK.stop)
    if (version := start[2] >> 4) != VERSION:
        what = "encode the video again" if version < VERSION else "update the program"
        raise CotamError(f"The video has version {version}, this program reads {VERSION}; {what}.")
    # Size and grid are read by the rules of a .cotam header, from one that is made of this head.
    size_form, map_form, reserved = start[3] >> 6, start[3] >> 4 & 3, start[3] & 15
    rest = reader.take(2 + size_form + (2 if map_form == 3 else 0))
    if reserved:
        raise CotamError(_DAMAGED.format("its head has no meaning"))
    made = container.MAGIC + bytes([container.VERSION << 4 | start[2] & 15]) + start[3:8] + bytes(4) + rest
    try:
        header, _ = container.unpack(container.seal(made) + bytes(8), container.MAXIMUM_SIDE**2)
    except CotamError:
        raise CotamError(_DAMAGED.format("its head has no meaning")) from None
    count = reader.integer(2)
    if count == 0:
        raise CotamError("The video has no frames; encode it again.")
    # An entry takes at least six bytes: a short file never makes a long list.
    if 6 * count > len(stream) - reader.place:
        raise CotamError("The video is truncated: not even its index is whole; copy it again.")
    frames = tuple(Frame(reader.number(), reader.number(), reader.integer(4)) for _ in range(count))
    bare = start[:8] + bytes(4) + stream[_CHECK.stop : reader.place]
    if zlib.crc32(bare).to_bytes(4, "little") != stream[_CHECK]:
        raise CotamError(_DAMAGED.format("its index fails its check"))
    video = Video(header, frames)
    if video.head() != stream[: reader.place] or min(frame.words for frame in frames) < 2:
        raise CotamError(_DAMAGED.format("its index has no meaning"))
    return video, reader.place


class _Reader:
    """Reads numbers one after another; a stream that ends too early is a CotamError."""

    def __init__(self, stream: bytes):
        self.stream = stream
        self.place = 0

    def take(self, count: int) -> bytes:
        self.place += count
        if self.place > len(self.stream):
            raise CotamError("The video is truncated: not even its index is whole; copy it again.")
        return self.stream[self.place - count : self.place]

    def integer(self, count: int) -> int:
        return int.from_bytes(self.take(count), "little")

    def number(self) -> int:
        """What `_number` wrote, below 2^32."""
        value, shift, more = 0, 0, True
        while more:
            if shift > 28:
                raise CotamError(_DAMAGED.format("its index has no meaning"))
            byte = self.integer(1)
            value, shift, more = value | (byte & 127) << shift, shift + 7, byte > 127
        if value >> 32:
            raise CotamError(_DAMAGED.format("its index has no meaning"))
        return value


def read_video(path: str | Path, maximum_pixels: int = MAXIMUM_VIDEO_PIXELS) -> bytes:
    """The bytes of a `.cotamv` file, after every check that needs no decoding; any other file is not read on.

    Raises:
        CotamError: it cannot be read, or `unpack` refuses it.
    """
    return container.read_checked(path, MAGIC, lambda stream: unpack(stream, maximum_pixels))


def is_video(path: str | Path) -> bool:
    """Whether a file begins as a video does, whatever its name. OSError if it cannot be opened."""
    with open(path, "rb") as file:
        return file.read(len(MAGIC)) == MAGIC
