"""What an evaluation asks about: the images of a style, or clips. How each is read and asked about is here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.evaluation.clips import clip_names, clip_pixels
from components.evaluation.pictures import benchmark_names, benchmark_pixels
from components.evaluation.streams import CLIPS, Setting

if TYPE_CHECKING:
    from components.mllm import Mllm


@dataclass(frozen=True)
class Material:
    """How a folder of the benchmarks is read and asked about.

    Attributes:
        names: folder -> the names of its images or clips.
        pixels: folder -> name -> pixels, of a clip those of all its frames.
        suite: folder, MLLM -> what asks every question about it.
        shown: receiver, setting, style -> what the suite is run on.
    """

    names: Callable[[Path], Sequence[str]]
    pixels: Callable[[Path], dict[str, int]]
    suite: Callable[[Path, "Mllm"], Any]
    shown: Callable[[Any, Setting, str], Any]


def _image_suite(folder: Path, mllm: "Mllm") -> Any:
    from components.evaluation.suite import Suite

    return Suite(folder, mllm)


def _clip_suite(folder: Path, mllm: "Mllm") -> Any:
    from components.evaluation.clip_suite import ClipSuite

    return ClipSuite(folder, mllm)


IMAGES = Material(
    benchmark_names, benchmark_pixels, _image_suite, lambda receiver, setting, style: receiver.views(setting, style)
)
VIDEOS = Material(clip_names, clip_pixels, _clip_suite, lambda receiver, setting, _: receiver.clips(setting))


def material_of(style: str) -> Material:
    """Of a style of the benchmarks, or of "clips"."""
    return VIDEOS if style == CLIPS else IMAGES
