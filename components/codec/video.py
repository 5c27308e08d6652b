"""Videos through an image codec: every frame is coded on its own, and all of them lie in one file with an index.

    stream = encode_video(codec, frames, quality=3)
    for decoded in decode_frames(codec, stream): ...

No frame depends on another: an MLLM reads 16 or 32 of them, seconds apart, of which one hardly predicts the next.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from components.codec.video_container import MAXIMUM_VIDEO_PIXELS, pack, unpack
from components.errors import CotamError

if TYPE_CHECKING:
    from components.codec.codec import Codec, Decoded

PORTION = 8  # frames that are coded together, and in memory at once


def encode_video(
    codec: "Codec",
    frames: Sequence[Image.Image | NDArray[np.uint8]],
    quality: int,
    guidance: Sequence[NDArray[np.int8] | None] | None = None,
    times: Sequence[int] | None = None,
) -> bytes:
    """Code frames into one `.cotamv` stream.

    Args:
        codec: any.
        frames: PIL images or uint8 arrays (H, W, 3), all of one size, in the order in which they are shown.
        quality: 0 (fewest bits) to 9, of all.
        guidance: for each frame its levels, as `Codec.encode` takes them; for all frames or for none.
        times: when each is shown, in whole milliseconds since the video's start; never falling. None: not known.

    Raises:
        CotamError: there are no frames, they differ in size, or `Codec.encode` refuses them.
    """
    sizes = {frame.size if isinstance(frame, Image.Image) else frame.shape[1::-1] for frame in frames}
    if len(sizes) > 1:
        (one, other, *_) = sorted(sizes)
        raise CotamError(
            f"The frames differ in size ({one[0]} x {one[1]} and {other[0]} x {other[1]}); a video has one size."
        )
    streams: list[bytes] = []
    for start in range(0, len(frames), PORTION):
        part = slice(start, start + PORTION)
        streams += codec.encode(frames[part], quality, None if guidance is None else guidance[part])
    return pack(streams, times or [0] * len(streams))


def decode_frames(
    codec: "Codec", stream: bytes, maximum_pixels: int = MAXIMUM_VIDEO_PIXELS
) -> "Iterator[Decoded]":
    """Decode one frame after another, so that a long video never lies in memory whole.

    Args:
        codec: the one that made it.
        stream: a `.cotamv` stream.
        maximum_pixels: refuse more, all frames together, before any memory is taken.

    Raises:
        CotamError: the stream is damaged, cut short, foreign, from another codec, or declares too many pixels. A frame
            that is damaged is named; those before it have been given out.
    """
    _, streams = unpack(stream, maximum_pixels)
    return _decode(codec, streams, maximum_pixels)


def _decode(codec: "Codec", streams: Sequence[bytes], maximum_pixels: int) -> "Iterator[Decoded]":
    for start in range(0, len(streams), PORTION):
        part = streams[start : start + PORTION]
        try:
            yield from codec.decode(part, maximum_pixels)
        except CotamError:
            for number, one in enumerate(part, start):  # which of them is it?
                try:
                    codec.decode([one], maximum_pixels)
                except CotamError as error:
                    raise CotamError(f"Frame {number} of {len(streams)}: {error}") from None
            raise
