"""Small videos for tests."""

from pathlib import Path

import numpy as np

SHADE = 2  # a frame is this much brighter than the one before


def write_video(path: Path, count: int, codec: str = "libx264", size=(64, 48), rotate: bool = False, **options) -> Path:
    """`count` grey frames, each a little brighter, with a keyframe in every ten; the top left quarter stays black."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.gop_size = 10
        stream.options = options
        for number in range(count):
            pixels = np.full((size[1], size[0], 3), SHADE * number % 256, np.uint8)
            pixels[: size[1] // 2, : size[0] // 2] = 0
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def shade(frame: np.ndarray) -> float:
    """What a frame's lower right quarter looks like."""
    height, width = frame.shape[:2]
    return float(frame[height // 2 :, width // 2 :].mean())
