"""What `benchmarks/fuzz.py --video` throws at the decoder of videos, and how it judges what comes of it.

Bytes are changed, cut off, added and spliced as in streams of images. Besides, head and index are changed with their
check made right, so that what lies behind it is reached: frames left out, doubled, swapped, of other lengths; frames of
one video under the head of another; other sizes, grids, qualities and models.
"""

import zlib
from dataclasses import replace

import numpy as np

from benchmarks import fuzz
from components.codec import Codec
from components.codec.container import FREE_GRIDS
from components.codec.video_container import Video, unpack
from components.errors import CotamError
from components.scenes import render, sample_scene

KINDS = ("bits", "bytes", "cut", "longer", "splice", "index", "frames", "shared", "guided", "guided")


def originals(codec: Codec) -> list[bytes]:
    """Videos that an encoder means: a few frames each, with every form of head."""
    sizes, grids, qualities = [(32, 32), (48, 17), (1, 1)], [*FREE_GRIDS, (3, 5)], [0, 4, 9]
    videos, rng = [], np.random.default_rng(0)
    for k in range(8):
        (height, width), grid, count = sizes[k % 3], grids[k % 4], 1 + k % 4
        scene = render(sample_scene(k, "validation", "bench"))
        frames = [scene[16 + n : 16 + n + height, 16 : 16 + width] for n in range(count)]
        levels = None if grid is None else [rng.integers(-1, 2, grid) for _ in frames]
        times = None if k % 2 else [40 * n for n in range(count)]
        videos.append(codec.encode_video(frames, qualities[k % 3], levels, times))
    return videos


class Mutator(fuzz.Mutator):
    """Makes videos that no encoder meant, from ones that it did."""

    kinds = KINDS

    def _index(self, stream: bytes) -> bytes:
        """Other numbers in the index."""

        def change(video: Video, payload: bytes):
            frames = list(video.frames)
            place = self._int(0, len(frames))
            names = {"words": self._int(0, 300), "milliseconds": self._int(0, 1 << 32), "check": self._int(0, 1 << 32)}
            name = self._one(list(names))
            frames[place] = replace(frames[place], **{name: names[name]})
            return replace(video, frames=tuple(frames)), payload

        return self._rewritten(stream, change)

    def _frames(self, stream: bytes) -> bytes:
        """Frames in another order, some of them twice or not at all, or thousands of one."""

        def change(video: Video, payload: bytes):
            starts = np.cumsum([0, *(4 * frame.words for frame in video.frames)])
            count = self._one([0, 1, 2, len(video.frames), 60_000 if self._int(0, 20) == 0 else 3])
            chosen = self.rng.integers(0, len(video.frames), count).tolist()
            parts = (payload[starts[k] : starts[k + 1]] for k in chosen)
            return replace(video, frames=tuple(video.frames[k] for k in chosen)), b"".join(parts)

        return self._rewritten(stream, change)

    def _shared(self, stream: bytes) -> bytes:
        """What all frames share, with another value."""

        def change(video: Video, payload: bytes):
            side = (1, 300) if self._int(0, 2) else (1, 65536)
            changes = {
                "model_id": self.rng.bytes(4).hex(),
                "width": self._int(*side),
                "height": self._int(*side),
                "quality": self._int(0, 10),
                "grid": self._one([*FREE_GRIDS, (self._int(1, 256), self._int(1, 256))]),
            }
            name = self._one(list(changes))
            return replace(video, header=replace(video.header, **{name: changes[name]})), payload

        return self._rewritten(stream, change)

    def _rewritten(self, stream: bytes, change) -> bytes:
        try:
            video, _ = unpack(stream, 1 << 62)
        except CotamError:
            return self._sealed(stream)
        payload = stream[len(stream) - sum(4 * frame.words for frame in video.frames) :]
        changed, payload = change(video, payload)
        return changed.head() + payload

    def _sealed(self, stream: bytes) -> bytes:
        """With the check of head and index made right, two times in three, where they end before the bytes do."""
        length = self._length(stream)
        if not 12 <= length <= len(stream) or not self._int(0, 3):
            return stream
        bare = stream[:8] + bytes(4) + stream[12:length]
        return bare[:8] + zlib.crc32(bare).to_bytes(4, "little") + stream[12:]

    @staticmethod
    def _length(stream: bytes) -> int:
        """Of head and index, or what it would be: walked without a check."""
        if len(stream) < 20:
            return 0
        place = 14 + (stream[3] >> 6) + (2 if stream[3] >> 4 & 3 == 3 else 0)
        count, place = int.from_bytes(stream[place : place + 2], "little"), place + 2
        for _ in range(min(count, len(stream))):
            for _ in range(2):
                while place < len(stream) and stream[place] > 127:
                    place += 1
                place += 1
            place += 4
        return place


class Judge(fuzz.Judge):
    """Decodes a video and says how it ended. A frame may stand in another place, if index and check say so."""

    def _digest(self, stream: bytes) -> str:
        """Of any frame that is not right; else of the first."""
        found = self._digests(stream)
        return next((digest for digest in found if digest not in self.right), found[0])

    def _digests(self, stream: bytes) -> list[str]:
        return [fuzz.digest(frame) for frame in self.codec.decode_video(stream, fuzz.MAXIMUM_PIXELS)]
