"""What a task of lmms-eval shows with a question, opened: a picture, several of them, or the frames of a video."""

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from components.data.images import open_image
from components.data.video import VIDEO_SUFFIXES, open_video
from components.errors import CotamError
from components.mllm import Kind


@dataclass(frozen=True, eq=False)
class Shown:
    """What a question is about: its kind, and its pictures or frames, uint8 (H, W, 3)."""

    kind: Kind
    pictures: tuple[NDArray[np.uint8], ...]

    @property
    def pixels(self) -> int:
        """Of all pictures together."""
        return sum(one.shape[0] * one.shape[1] for one in self.pictures)

    @cached_property
    def key(self) -> Hashable:
        """Equal for equal pictures."""
        digests = (hashlib.sha256(np.ascontiguousarray(one).data).digest() for one in self.pictures)
        return self.kind, tuple(one.shape for one in self.pictures), tuple(digests)


def open_visuals(visuals: Any, frames: int, scenes: Path, question: str) -> Shown:
    """Open what a task shows.

    Args:
        visuals: what its `doc_to_visual` gave: PIL images, uint8 arrays, names of files; one or a list.
        frames: taken of a video.
        scenes: where tasks over scenes, which give names alone, have their pictures and clips.
        question: how an error names it.

    Raises:
        CotamError: nothing is shown, or something that is neither; or a file cannot be read.
    """
    visuals = [visuals] if isinstance(visuals, str | Image.Image | np.ndarray) else list(visuals or ())
    if not visuals:
        raise CotamError(f"{question} has no picture; cotam answers questions about pictures.")
    visuals = [_file(visual, scenes) if isinstance(visual, str) else visual for visual in visuals]
    if len(visuals) == 1 and isinstance(visuals[0], Path) and _is_video(visuals[0]):
        return Shown(Kind.VIDEO, _frames(visuals[0], frames))
    pictures = tuple(map(_picture, visuals))
    return Shown(Kind.IMAGE if len(pictures) == 1 else Kind.IMAGES, pictures)


def _file(name: str, scenes: Path) -> Path:
    """A file that a task shows; tasks over scenes give its name alone."""
    if Path(name).suffix or Path(name).exists():
        return Path(name)
    clip = scenes / f"further/videos/{name}.apng"
    return clip if clip.exists() else scenes / f"bench/images/{name}.png"


def _picture(visual: Any) -> NDArray[np.uint8]:
    if isinstance(visual, Path):
        visual = open_image(visual)
    if isinstance(visual, Image.Image):
        return np.array(visual.convert("RGB"))
    if isinstance(visual, np.ndarray) and visual.dtype == np.uint8 and visual.ndim == 3:
        return visual
    raise CotamError(f"A task shows {type(visual).__name__}; cotam takes pictures, and the names of videos.")


@lru_cache(maxsize=1)
def _frames(path: Path, count: int) -> tuple[NDArray[np.uint8], ...]:
    """Of a video; questions about one follow each other."""
    return tuple(open_video(path, count).frames)


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in {*VIDEO_SUFFIXES, ".apng"} or path.is_dir()
