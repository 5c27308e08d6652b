"""What is looked at: the world's scenes, photographs, or a folder of the user's; read one by one as they are needed."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from components.data.images import FORMATS, open_image
from components.errors import CotamError
from components.evaluation.pictures import photographs
from components.scenes import render, sample_scene

SCENES, PHOTOGRAPHS = "scenes", "photographs"

Load = Callable[[], NDArray[np.uint8]]


@dataclass(frozen=True)
class Images:
    """Named images, each with a function that reads it as uint8 (H, W, 3)."""

    source: str
    names: list[str]
    loads: list[Load]

    def __len__(self) -> int:
        return len(self.names)


def find_images(source: str, count: int) -> Images:
    """The first `count` images of a source.

    Args:
        source: `scenes` (drawn for this: the split and the style that no model was trained on), `photographs` (eight
            that come with scikit-image and scikit-learn), or a folder.
        count: how many at most.

    Raises:
        CotamError: there is no such folder, or no image in it.
    """
    if source == SCENES and not Path(source).is_dir():
        seeds = range(count)
        return Images(source, [f"{seed:06d}" for seed in seeds], [partial(_scene, seed) for seed in seeds])
    if source == PHOTOGRAPHS and not Path(source).is_dir():
        names = list(_photographs())[:count]
        return Images(source, names, [partial(_photograph, name) for name in names])
    folder = Path(source)
    if not folder.is_dir():
        raise CotamError(f"{source} is no folder; name a folder of images, or say {SCENES} or {PHOTOGRAPHS}.")
    endings = {ending for ending, kind in Image.registered_extensions().items() if kind in FORMATS}
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in endings and path.is_file()]
    files = [path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts)][:count]
    if not files:
        raise CotamError(f"{folder} holds no image ({', '.join(FORMATS)}); name another folder.")
    return Images(source, [path.relative_to(folder).as_posix() for path in files], [partial(_file, p) for p in files])


def _scene(seed: int) -> NDArray[np.uint8]:
    return render(sample_scene(seed, "test", "bench"))


def _photograph(name: str) -> NDArray[np.uint8]:
    return _photographs()[name]


_photographs = cache(photographs)


def _file(path: Path) -> NDArray[np.uint8]:
    return np.array(open_image(path))
