"""Scenes that were rendered to learn from, by style and detail: where they lie, their graphs, their views' labels.

`render_scenes.py` wrote them: STYLE.npy are ordinary scenes, STYLE-256.npy those of detail 2, and so on;
STYLE-clips.npy are moving scenes.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np

from components.closure import import_closure
from components.errors import CotamError
from components.files import atomic_file, sha256
from components.paths import ROOT
from components.scenes import Scene, sample_scene
from components.scenes.captions import caption
from components.scenes.graph import NORMAL_SIZE
from components.scenes.moving import Clip, sample_clip
from pipelines.pretrain import tiles
from pipelines.pretrain.tiles import GRID


@dataclass(frozen=True)
class Material:
    """Scenes of the train split of one style and detail, from seed 0 on; or clips of so many `frames`."""

    style: str
    detail: int = 1
    frames: int = 0

    @property
    def size(self) -> int:
        """Pixels of a side."""
        return NORMAL_SIZE * self.detail

    @property
    def views(self) -> int:
        """What a model of tiles is shown of one: its tiles and the whole, if it has several, or its frames.

        LLaVA-OneVision is shown the whole of an ordinary one as well.
        """
        return self.frames or (1 if self.detail == 1 else self.detail**2 + 1)

    @property
    def name(self) -> str:
        """Of its files."""
        if self.frames:
            return f"{self.style}-clips"
        return self.style if self.detail == 1 else f"{self.style}-{self.size}"

    def scene(self, seed: int) -> Scene:
        """The graph of one."""
        return sample_scene(seed, "train", self.style, self.size, self.detail)

    def clip(self, seed: int) -> Clip:
        """The graph of one that moves."""
        return sample_clip(seed, "train", self.style, self.size)

    def graph(self, seed: int) -> Scene | Clip:
        """Of whichever of the two these are."""
        return self.clip(seed) if self.frames else self.scene(seed)

    def pixels(self, folder: Path) -> np.ndarray:
        """uint8 (count, size, size, 3), of clips (count, frames, size, size, 3), on disk.

        Raises:
            CotamError: they were not rendered.
        """
        path = folder / f"{self.name}.npy"
        if not path.exists():
            asked = f"--frames {self.frames}" if self.frames else f"--size {self.size} --detail {self.detail}"
            raise CotamError(
                f"{path} does not exist; run python -m pipelines.pretrain.render_scenes {path} --style {self.style} "
                f"{asked}"
            )
        return np.load(path, mmap_mode="r")

    def made_of(self, folder: Path, what: str, module: str, suffix: str) -> Path:
        """Where `what` the code of `module` makes of these scenes is kept.

        The name holds a hash of the pixels and of the code, so that nothing is read that other scenes or another
        renderer gave; what they gave is removed.

        Raises:
            CotamError: the scenes were not rendered.
        """
        self.pixels(folder)
        source = folder / f"{self.name}.npy"
        stat = source.stat()
        parts = [_sha256_of(source, stat.st_size, stat.st_mtime_ns)]
        parts += [f"{file} {sha256(ROOT / file)}" for file in import_closure(module) if file.suffix == ".py"]
        key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
        for other in folder.glob(f"{self.name}.{what}.*{suffix}"):
            if key not in other.name:
                other.unlink(missing_ok=True)  # two trainings may start at once
        return folder / f"{self.name}.{what}.{key}{suffix}"


@cache
def _sha256_of(path: Path, size: int, changed_ns: int) -> str:
    """SHA-256 of a file of gigabytes, once per process for as long as it is the same."""
    return sha256(path)


def kept(path: Path, work: Callable[[int], tuple[np.ndarray, ...]], count: int, processes: int) -> list[np.ndarray]:
    """What `work` makes of seeds 0 to `count`, by column; kept in an .npz file, made again if that is shorter."""
    if path.exists():
        with np.load(path) as stored:
            columns = [stored[name] for name in sorted(stored)]
        if len(columns[0]) >= count:
            return [column[:count] for column in columns]
    with Pool(min(processes, count)) as pool:
        rows = pool.map(work, range(count), chunksize=100)
    columns = [np.stack(column) for column in zip(*rows, strict=True)]
    made: dict[str, Any] = {str(number): column for number, column in enumerate(columns)}
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **made)
    return columns


def view_labels(
    folder: Path, material: Material, count: int, grid: int = GRID, processes: int = 1
) -> list[np.ndarray]:
    """Labels of what `tiles.cut` gives: of patches, int8 (count, V, grid * grid, k), and of images, (count, V, m)."""
    path = material.made_of(folder, f"labels{grid}", __name__, ".npz")
    return kept(path, partial(_labels, material, grid), count, processes)


def captions(folder: Path, material: Material, count: int, processes: int = 1) -> np.ndarray:
    """A caption of each of the first scenes: str (count,)."""
    path = material.made_of(folder, "captions", __name__, ".npz")
    (made,) = kept(path, partial(_caption, material), count, processes)
    return made


def _caption(material: Material, seed: int) -> tuple[np.ndarray]:
    return (np.array(caption(material.scene(seed), np.random.default_rng([3, seed]))),)


def _labels(material: Material, grid: int, seed: int) -> tuple[np.ndarray, ...]:
    return tuple(column.astype(np.int8) for column in tiles.labels(material.scene(seed), grid))
