"""A video file or a folder of frames -> some of its frames, spread evenly, as pictures a person would see.

Files are read with PyAV (FFmpeg). Of a long video only the neighbourhoods of the wanted frames are decoded: packets are
counted first, without decoding, and from then on the reader jumps from keyframe to keyframe.
"""

import math
import os
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.data.images import MAXIMUM_PIXELS, open_image
from components.data.sources import IMAGE_SUFFIXES
from components.errors import CotamError

VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("3gp", "avi", "flv", "m2ts", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "mts", "ogv", "ts", "webm", "wmv"),
    )
)
"""Names that promise a video."""
FRAMES = 16  # sampled where nobody says how many
MAXIMUM_FRAMES = 1024  # sampled at most
MAXIMUM_VIDEO_PIXELS = 4 * MAXIMUM_PIXELS  # of all sampled frames together, as `cotam decode` takes them

Found = list[tuple[int, NDArray[np.uint8]]]
"""When a frame is shown, in milliseconds, and its pixels."""


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames of a video.

    Attributes:
        frames: uint8 (H, W, 3) each, all of one size, in the order in which they are shown.
        times: when each is shown, in whole milliseconds since the first frame of the video, never falling; all zero for
            a folder.
        total: how many frames the video has.
    """

    frames: list[NDArray[np.uint8]]
    times: list[int]
    total: int


def sample(total: int, count: int) -> list[int]:
    """`count` of `total` frames, evenly from the first to the last; all of them if there are not more.

    The same frames as lmms-eval's own models take: np.linspace(0, total - 1, count), rounded down.
    """
    return list(range(total)) if total <= count else np.linspace(0, total - 1, count, dtype=int).tolist()


def open_video(path: str | os.PathLike, count: int = FRAMES) -> Clip:
    """Some frames of a video.

    Args:
        path: a video file, or a folder whose images, sorted by name, are the frames.
        count: how many, at most; a shorter video gives all its frames.

    Raises:
        CotamError: `count` is above `MAXIMUM_FRAMES`; or it cannot be read, is no video, has no frames, too many
            pixels, or frames of several sizes.
    """
    if count > MAXIMUM_FRAMES:
        raise CotamError(f"{count} frames are too many; choose at most {MAXIMUM_FRAMES} (--frames).")
    path = Path(path)
    clip = _open_folder(path, count) if path.is_dir() else _open_file(path, count)
    sizes = sorted({frame.shape[1::-1] for frame in clip.frames})
    if len(sizes) > 1:
        (one, other, *_) = sizes
        raise CotamError(
            f"{path} has frames of {one[0]} x {one[1]} and of {other[0]} x {other[1]} pixels; a video has one size."
        )
    return clip


def _open_folder(folder: Path, count: int) -> Clip:
    names = sorted(
        path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )
    if not names:
        raise CotamError(f"{folder} has no frames: it holds no images; name a video, or a folder of its frames.")
    chosen = sample(len(names), count)
    frames: list[NDArray[np.uint8]] = []
    for index in chosen:
        frames.append(np.asarray(open_image(names[index])))
        if len(frames) == 1:  # all others have its size, or are refused
            _check_pixels(folder, frames[0].shape[1], frames[0].shape[0], len(chosen))
        if frames[-1].shape != frames[0].shape:
            break
    return Clip(frames, [0] * len(frames), len(names))


def _open_file(path: Path, count: int) -> Clip:
    import av

    try:
        with av.open(os.fspath(path)) as container:
            if not container.streams.video:
                raise CotamError(f"{path} has no frames: there is no video in it, only sound or text.")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            if stream.codec_context.width * stream.codec_context.height > MAXIMUM_PIXELS:
                raise CotamError(f"{path} has frames of more than {MAXIMUM_PIXELS} pixels; make it smaller first.")
            size = stream.codec_context.width, stream.codec_context.height
            times, keys = _index(container, stream)
            chosen = sample(len(times), count)
            _check_pixels(path, *size, len(chosen))
            found = _by_seeking(container, stream, keys, [times[index] for index in chosen])
        if found is None:
            times, found = _by_counting(path, size, count)
    except FileNotFoundError:
        raise CotamError(f"{path} does not exist.") from None
    except PermissionError as error:
        raise CotamError(f"{path} cannot be read ({error.strerror}).") from None
    except av.error.FFmpegError as error:
        raise CotamError(f"{path} is not a video that can be read, or is damaged ({error.strerror}).") from None
    if not found:
        raise CotamError(f"{path} has no frames; record it again.")
    # A damaged or joined file may say of a later frame that it is shown earlier: then it is shown at once.
    shown = accumulate((max(0, when - times[0]) for when, _ in found), max)
    return Clip([pixels for _, pixels in found], list(shown), len(times))


def _check_pixels(path: Path, width: int, height: int, count: int) -> None:
    if count * width * height > MAXIMUM_VIDEO_PIXELS:
        raise CotamError(
            f"{count} frames of {path} have more than {MAXIMUM_VIDEO_PIXELS} pixels together ({width} x {height} "
            "each); take fewer (--frames), or make it smaller first."
        )


def _index(container, stream) -> tuple[list[int], list[int]]:
    """When every frame is shown, in milliseconds and rising, and when the keyframes are; nothing is decoded.

    Both are empty where the file does not say when its frames are shown.
    """
    shown, keys = [], []
    for packet in container.demux(stream):
        if packet.size == 0 or packet.is_discard:
            continue
        if packet.pts is None:
            return [], []
        shown.append(_milliseconds(packet))
        if packet.is_keyframe:
            keys.append(shown[-1])
    return sorted(shown), sorted(keys)


def _milliseconds(item) -> int:
    """When a packet or frame is shown."""
    return round(1000 * item.pts * item.time_base)


def _by_seeking(container, stream, keys: list[int], wanted: list[int]) -> Found | None:
    """The frames that are shown at these times; None where jumping to them does not lead there."""
    import av

    found: Found = []
    at, frames = -1, iter(())
    try:
        for when in wanted:
            before = bisect_right(keys, when) - 1
            if before < 0:
                return None
            if not found or keys[before] > at:
                # Half a unit later: milliseconds were rounded, and a jump ends at the keyframe before its aim.
                container.seek(math.ceil((keys[before] + 0.5) / 1000 / stream.time_base), stream=stream)
                frames = container.decode(stream)
            frame = next((frame for frame in frames if frame.pts is not None and _milliseconds(frame) >= when), None)
            if frame is None or (at := _milliseconds(frame)) != when:
                return None
            found.append((at, _pixels(frame)))
    except av.error.FFmpegError:
        return None
    return found or None


def _by_counting(path: Path, size: tuple[int, int], count: int) -> tuple[list[int], Found]:
    """When every frame is shown, and some of them: decoding all, twice, which works with any file and takes longest."""
    import av

    def decode() -> Iterator:
        with av.open(os.fspath(path)) as container:
            container.streams.video[0].thread_type = "AUTO"
            yield from container.decode(container.streams.video[0])

    times = [0 if frame.pts is None else _milliseconds(frame) for frame in decode()]
    chosen = set(sample(len(times), count))
    _check_pixels(path, *size, len(chosen))
    return times, [(times[index], _pixels(frame)) for index, frame in enumerate(decode()) if index in chosen]


def _pixels(frame) -> NDArray[np.uint8]:
    """As it is shown: upright, full-range sRGB."""
    pixels = frame.to_ndarray(format="rgb24", src_colorspace=frame.colorspace, src_color_range=frame.color_range)
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90) % 4))
