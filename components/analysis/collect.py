"""Over all images: read, compress, look, and keep a few numbers per image. Portions are shared out to processes.

What an image's numbers are depends on nothing but the image: not on how many there are, on how many go through the
tower together, or on the number of processes (up to the last digits, where a library's product of matrices rounds
another way for another number of rows; on the processor that was tried, equal to the last bit).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from components.analysis.compressors import Choice, Compressors
from components.analysis.flow import NAMES, Layout
from components.analysis.images import Images
from components.analysis.measure import Measure, Measured
from components.analysis.towers import Tower, open_tower
from components.evaluation.streams import Setting
from components.progress import track
from components.workers import run_jobs

PORTION = 16
"""Images that are read and compressed together; sums are kept per portion, so that no batch size changes them."""


@dataclass(frozen=True)
class Analysis:
    """What was measured of a tower.

    Attributes:
        tower: its name.
        layout: of its tokens.
        layers: L.
        images: names, I of them.
        settings: S of them, in the order of the codecs and their qualities.
        values: by the names of `flow.NAMES`: (I, V, L) float64; version 0 is the raw image.
        similarity_ISL: see `Measured`.
        cls_similarity_ISL: see `Measured`.
        bits_IS: of whole files.
        pixels_I: of each image.
        sums: see `Measure`; over all images.
    """

    tower: str
    layout: Layout
    layers: int
    images: list[str]
    settings: list[Setting]
    values: dict[str, np.ndarray]
    similarity_ISL: np.ndarray
    cls_similarity_ISL: np.ndarray
    bits_IS: np.ndarray
    pixels_I: np.ndarray
    sums: dict[str, np.ndarray]

    @property
    def bpp(self) -> np.ndarray:
        """Bits per pixel of every setting: all bits over all pixels, (S,)."""
        return self.bits_IS.sum(0) / self.pixels_I.sum()

    @property
    def codecs(self) -> list[str]:
        """Their names, in the order of the settings."""
        return list(dict.fromkeys(setting.method for setting in self.settings))

    def strongest(self, name: str) -> int:
        """The place of a codec's setting of fewest bits."""
        return min(self.of_codec(name), key=lambda place: self.bpp[place])

    def of_codec(self, name: str) -> list[int]:
        """The places of a codec's settings."""
        return [place for place, setting in enumerate(self.settings) if setting.method == name]


@dataclass(frozen=True)
class _Portion:
    tower: tuple[str, Layout, int]
    measured: list[Measured]
    sums: dict[str, np.ndarray]
    bits_BS: np.ndarray
    pixels_B: np.ndarray


def analyse(
    path_or_name: str, images: Images, choices: Sequence[Choice], *, batch: int = 4, workers: int = 1
) -> Analysis:
    """Measure a tower on images and on what codecs leave of them.

    Args:
        path_or_name: of the tower.
        images: to look at.
        choices: codecs and their qualities; there may be none.
        batch: images that go through the tower together, each with all its versions.
        workers: processes.

    Raises:
        CotamError: tower, codec or an image cannot be used.
    """
    settings = [setting for choice in choices for setting in choice.settings]
    portions = [range(first, min(len(images), first + PORTION)) for first in range(0, len(images), PORTION)]

    def start() -> Callable[[range], _Portion]:
        worker = _Worker(open_tower(path_or_name), images, Compressors(choices), settings, batch)
        return worker.portion

    jobs = run_jobs(portions, start, workers, advice="run with fewer --workers or a smaller --batch")
    merged = _Merged()
    for portion, found in track(jobs, f"Looking through {path_or_name}", len(portions)):
        merged.add(portion.start, found)
    name, layout, layers = merged.tower
    values_IVLK = np.concatenate(merged.values)
    return Analysis(
        tower=name,
        layout=layout,
        layers=layers,
        images=images.names,
        settings=settings,
        values={key: values_IVLK[..., place] for place, key in enumerate(NAMES)},
        similarity_ISL=np.concatenate(merged.similarity),
        cls_similarity_ISL=np.concatenate(merged.cls_similarity),
        bits_IS=np.concatenate(merged.bits),
        pixels_I=np.concatenate(merged.pixels),
        sums=merged.sums,
    )


class _Worker:
    """What a process holds on to."""

    def __init__(self, tower: Tower, images: Images, compressors: Compressors, settings: Sequence[Setting], batch: int):
        self.tower, self.images, self.compressors = tower, images, compressors
        self.settings, self.batch = settings, batch

    def portion(self, places: range) -> _Portion:
        """Measure the images at these places."""
        raw = [self.images.loads[place]() for place in places]
        coded = [self.compressors.code(setting, raw) for setting in self.settings]
        measure = Measure(self.tower, 1 + len(self.settings))
        measured = []
        for first in range(0, len(raw), self.batch):
            some = range(first, min(len(raw), first + self.batch))
            versions = [[raw[place], *(one.pictures[place] for one in coded)] for place in some]
            measured.append(measure(torch.stack([self.tower.geometry.pixels(pictures) for pictures in versions])))
        bits = np.array([one.bits for one in coded], np.int64).reshape(len(self.settings), len(raw)).T
        layout = Layout(self.tower.layout.cls, self.tower.layout.grid)  # anew: without the distances it has cached
        return _Portion(
            tower=(self.tower.name, layout, self.tower.layers),
            measured=measured,
            sums=measure.sums,
            bits_BS=bits,
            pixels_B=np.array([picture.shape[0] * picture.shape[1] for picture in raw]),
        )


class _Merged:
    """Portions put together in the order of the images, whatever the order in which they come."""

    def __init__(self):
        self.values: list[np.ndarray] = []
        self.similarity: list[np.ndarray] = []
        self.cls_similarity: list[np.ndarray] = []
        self.bits: list[np.ndarray] = []
        self.pixels: list[np.ndarray] = []
        self.sums: dict[str, np.ndarray] = {}
        self.tower: tuple[str, Layout, int]
        self._early: dict[int, _Portion] = {}
        self._next = 0

    def add(self, first: int, portion: _Portion) -> None:
        self._early[first] = portion
        while self._next in self._early:
            portion = self._early.pop(self._next)
            self._next += len(portion.pixels_B)
            for measured in portion.measured:
                self.values.append(measured.values_BVLK)
                self.similarity.append(measured.similarity_BSL)
                self.cls_similarity.append(measured.cls_similarity_BSL)
            for name, value in portion.sums.items():
                self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.tower = portion.tower
            self.bits.append(portion.bits_BS)
            self.pixels.append(portion.pixels_B)
