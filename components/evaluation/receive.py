"""What an MLLM sees of the benchmarks: clean pictures, or what a file holds and, for cotam, what the adapter adds."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from components.evaluation.clips import clip_names, open_clip
from components.evaluation.coding import Coder
from components.evaluation.pictures import Pictures, benchmark_pictures
from components.evaluation.streams import CLEAN, CLIPS, COTAM, Setting, Streams

if TYPE_CHECKING:
    from components.adapter import LatentAdapter
    from components.mllm import Mllm, Seen, View
    from components.mllm.showing import Picture

CLIPS_AT_ONCE = 8


class Receiver:
    """Turns files into views. The original pictures are opened for `clean` alone."""

    def __init__(self, benchmarks: Path, streams: Streams, coder: Coder, mllm: "Mllm", adapter: "LatentAdapter | None"):
        """`benchmarks` holds a folder per style; `adapter` belongs to the coder's codec and the MLLM's tower.

        Only `cotam` needs an adapter.
        """
        self.benchmarks = benchmarks
        self.streams = streams
        self.coder = coder
        self.mllm = mllm
        self.adapter = adapter

    def views(self, setting: Setting, style: str) -> "dict[str, View]":
        """Image name -> view, for every image of a style."""
        if setting == CLEAN:
            return self._plain(benchmark_pictures(self.benchmarks / style))
        files = self.streams.files(setting, style)
        if setting.method != COTAM:
            return self._plain(self.coder.pictures(setting, files))
        decoded = self.coder.decode(files)
        return dict(zip(decoded, self.mllm.decoded_views(list(decoded.values()), self.adapter), strict=True))

    def clips(self, setting: Setting) -> "Iterator[dict[str, Seen]]":
        """A few clips at a time: name -> what is seen of it. For cotam the adapter speaks for every frame."""
        adapter = self.adapter if setting.method == COTAM else None
        clips = self._frames(setting)
        while portion := list(islice(clips, CLIPS_AT_ONCE)):
            names, videos = zip(*portion, strict=True)
            yield dict(zip(names, self.mllm.video_views(videos, adapter), strict=True))

    def _frames(self, setting: Setting) -> "Iterator[tuple[str, list[Picture]]]":
        folder = self.benchmarks / CLIPS
        if setting == CLEAN:
            yield from ((name, open_clip(folder, name).frames) for name in clip_names(folder))
            return
        for name, content in self.streams.files(setting, CLIPS).items():
            frames = self.coder.decode_clip(name, content)
            yield name, frames if setting.method == COTAM else [frame.image for frame in frames]

    def _plain(self, pictures: Pictures) -> "dict[str, View]":
        return dict(zip(pictures, self.mllm.views(list(pictures.values())), strict=True))
