"""All that the frozen parts say of the training images, computed once: codec, guidance and tower never change.

Every image is decoded at a few drawn qualities (`draws.py`), most of the time with a guidance map, as CoTAM's streams
carry one. What the loss needs is kept: the decoded latent, its quality map and E(x^) of each view, and E(x), F(x) of
each image (paper, section 3.3). The last images are held out and seen at every quality, for validation.

The codec runs without its entropy coder and on batches, to the latent and picture that a decoder would get but for
rounding. Filling goes on where a killed run stopped.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor

from components.closure import import_closure
from components.codec.codec import Codec
from components.codec.guidance import guide
from components.environment import numeric_fingerprint
from components.errors import CotamError
from components.files import sha256
from components.paths import ROOT
from components.progress import track
from components.training.draws import Draw, cut, draw
from components.training.table import Column, Table
from components.vision import Tower
from components.workers import in_one_process, run_jobs

PORTION = 32  # images that go through codec and tower together; part of the result, as batched sums differ
SAMPLE = 1024  # views that the adapter's units are measured on


Rows = dict[str, np.ndarray]
"""Column -> values (n, ...)."""


class Images(Protocol):
    """Where images come from (`components.data.ShardReader`)."""

    def __len__(self) -> int: ...

    def order(self, epoch: int) -> np.ndarray: ...

    def read(self, numbers: Iterable[int]) -> Iterator[Image.Image]: ...


@dataclass(frozen=True)
class Plan:
    """What is to be seen of the images.

    Attributes:
        seed: of all draws.
        qualities: the training's; one is drawn per image and pass, uniformly, so repeating one makes it likelier.
        draws: at how many drawn qualities an image is seen; epoch e takes number e modulo `draws`.
        held_out: how many of the last images are kept from training; at most a fifth of all.
        layers, grid, k, levels: the guidance (paper, section 3.2); with one level no image has a map.
    """

    seed: int
    qualities: tuple[int, ...]
    draws: int
    held_out: int
    layers: tuple[int, ...]
    grid: int
    k: float
    levels: int = 3

    @property
    def validation_qualities(self) -> tuple[int, ...]:
        """Each of the training's once, rising."""
        return tuple(sorted(set(self.qualities)))

    def split(self, images: int) -> tuple[int, int]:
        """Number of images to train on and to hold out.

        Raises:
            CotamError: there are fewer than two images.
        """
        if images < 2:
            raise CotamError(f"The shards hold {images} image(s), training needs at least 2; shard a larger folder.")
        held_out = max(1, min(self.held_out, images // 5))
        return images - held_out, held_out


def store_key(plan: Plan, inputs: dict[str, str]) -> str:
    """Sixteen hex digits that name a store: plan, inputs (hashes of shards and models), code and libraries."""
    # The stages give the store a tower of tower.py, whose features are not bit for bit those of another.
    modules = ("components.training.feature_store", "components.training.tower")
    code = {str(file): sha256(ROOT / file) for module in modules for file in import_closure(module)}
    parts = {"plan": asdict(plan), "inputs": inputs, "code": code, "libraries": numeric_fingerprint()}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


class FeatureStore:
    """The filled tables, as training examples (`__len__`, `order`, `batch`) and as validation batches."""

    def __init__(
        self,
        folder: Path,
        images: Images,
        plan: Plan,
        codec: Codec,
        guide_tower: Tower,
        tower: Tower,
        workers: int = 1,
    ):
        """Open the store in `folder`, filling what is missing.

        Args:
            guide_tower: the CLIP whose attention guides the bits.
            tower: the MLLM's; its features are the targets.
            workers: processes that fill it; what they write does not depend on how many there are.
        """
        self.plan = plan
        self._order = images.order
        self._training, self._held_out = plan.split(len(images))
        size = tower.geometry.output_size[0]
        patches = Column((tower.grid[0] * tower.grid[1], tower.width), "float16")
        latent_size = codec.latent_size(size, size)
        views = self._training * plan.draws + self._held_out * len(plan.validation_qualities)
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "filling.lock"):
            self.images = Table(folder / "images", {"patches": patches, "features": patches}, len(images))
            self.views = Table(
                folder / "views",
                {
                    "y_hat": Column((codec.config.latent_channels, *latent_size), "float16"),
                    "quality_map": Column(latent_size, "uint8"),
                    "decoded": patches,
                },
                views,
            )
            if self.images.filled < len(images):
                read = images.read
                if in_one_process(workers):  # the following portion is read while one is looked at
                    coming = images.read(range(self.images.filled, len(images)))
                    read = partial(_take, coming)
                look_at = partial(self.look_at, read, size, codec, guide_tower, tower)
                self._fill(len(images), look_at, workers)

    def __len__(self) -> int:
        """Images to train on."""
        return self._training

    def order(self, epoch: int) -> np.ndarray:
        """The shards' order in this epoch, without the images that are held out."""
        order = np.asarray(self._order(epoch))
        return order[order < self._training]

    def batch(self, epoch: int, examples: np.ndarray) -> dict[str, Tensor]:
        """Tensors of training images `examples` as they are seen in `epoch`.

        Returns:
            y_hat (B, C, h, w), decoded E(x^), patches E(x) and features F(x), each (B, N, D), float32;
            quality_map (B, h, w), int64.
        """
        examples = np.asarray(examples)
        return self._tensors(examples, examples * self.plan.draws + epoch % self.plan.draws)

    def sample(self) -> dict[str, Tensor]:
        """All training views, or `SAMPLE` of them evenly spread, as `batch` gives them."""
        count = self._training * self.plan.draws
        views = np.unique(np.linspace(0, count - 1, min(count, SAMPLE)).astype(np.int64))
        return self._tensors(views // self.plan.draws, views)

    def held_out(self, quality: int, size: int) -> Iterator[dict[str, Tensor]]:
        """The held-out images, guided around base quality `quality`, in batches of at most `size`."""
        kinds = len(self.plan.validation_qualities)
        place = self.plan.validation_qualities.index(quality)
        for start in range(0, self._held_out, size):
            numbers = np.arange(start, min(start + size, self._held_out))
            views = self._training * self.plan.draws + numbers * kinds + place
            yield self._tensors(self._training + numbers, views)

    def _tensors(self, images: np.ndarray, views: np.ndarray) -> dict[str, Tensor]:
        def rows(table: Table, name: str, numbers: np.ndarray) -> Tensor:
            tensor = torch.from_numpy(table[name][numbers])
            return tensor.float() if tensor.is_floating_point() else tensor.long()

        return {name: rows(self.views, name, views) for name in self.views.columns} | {
            name: rows(self.images, name, images) for name in self.images.columns
        }

    def _looks(self, image: int) -> list[Draw]:
        """Every view of an image, in the order of the rows."""
        if image >= self._training:
            return [Draw(quality, True) for quality in self.plan.validation_qualities]
        return [draw(self.plan.seed, epoch, image, self.plan.qualities) for epoch in range(self.plan.draws)]

    def _first_view(self, image: int) -> int:
        """The row of an image's first view."""
        training = min(image, self._training)
        return training * self.plan.draws + (image - training) * len(self.plan.validation_qualities)

    def _fill(self, images: int, look_at: Callable[[int], tuple[Rows, Rows]], workers: int) -> None:
        following = self.images.filled
        starts = range(following, images, PORTION)
        waiting: dict[int, tuple[Rows, Rows]] = {}
        # One thread each: on small pictures further threads mostly wait.
        done = run_jobs(starts, lambda: look_at, workers)
        for start, rows in track(done, "Decoding the training images", len(starts)):
            waiting[start] = rows
            while following in waiting:
                views, pictures = waiting.pop(following)
                # Views first: the images' row count is what says how far the store is.
                self.views.rewind(self._first_view(following))
                self.views.append(views)
                self.images.append(pictures)
                following += PORTION

    @torch.no_grad()
    def look_at(
        self,
        read: Callable[[range], Iterable[Image.Image]],
        size: int,
        codec: Codec,
        guide_tower: Tower,
        tower: Tower,
        start: int,
    ) -> tuple[Rows, Rows]:
        """The rows of all views of a portion's images, and of the images themselves."""
        plan = self.plan
        numbers = range(start, min(start + PORTION, self.images.rows))
        pictures = [cut(image, size, plan.seed, number) for number, image in zip(numbers, read(numbers), strict=True)]
        levels = [None] * len(pictures)
        if plan.levels > 1:
            levels = guide(guide_tower, pictures, plan.grid, plan.k, plan.layers, levels=plan.levels)
        looks = [(place, look) for place, number in enumerate(numbers) for look in self._looks(number)]
        decoded = codec.reconstruct(
            [pictures[place] for place, _ in looks],
            [look.quality for _, look in looks],
            [levels[place] if look.guided else None for place, look in looks],
            batched=True,
        )
        views = {
            "y_hat": np.stack([item.latent for item in decoded]),
            "quality_map": np.stack([item.level_map for item in decoded]),
            "decoded": _patches([item.image for item in decoded], tower).cpu().numpy(),
        }
        patches_BND = _patches(pictures, tower)
        features_BND = tower.forward_from_patches(patches_BND).consumed_BND
        return views, {"patches": patches_BND.cpu().numpy(), "features": features_BND.cpu().numpy()}


def _take(coming: Iterator[Image.Image], numbers: range) -> list[Image.Image]:
    return list(itertools.islice(coming, len(numbers)))


def _patches(pictures: Sequence[Image.Image | np.ndarray], tower: Tower) -> Tensor:
    """E: pictures of the tower's own size -> (B, N, D)."""
    device = next(tower.parameters()).device
    return tower.patch_embed(tower.geometry.pixels(pictures).to(device))
