"""The feature store of the settings' models over pictures in memory, and what it takes to look at them anew."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from components import config
from components.codec.codec import Codec
from components.training.feature_store import FeatureStore, Plan, Rows
from components.training.tower import training_tower
from components.vision import Tower, load_tower


@dataclass(frozen=True)
class InMemory:
    """Pictures as a store reads them."""

    pictures: Sequence[Image.Image]

    def __len__(self) -> int:
        return len(self.pictures)

    def order(self, epoch: int) -> np.ndarray:
        return np.arange(len(self))

    def read(self, numbers: Iterable[int]) -> Iterator[Image.Image]:
        return (self.pictures[number] for number in numbers)


@dataclass(frozen=True)
class Filling:
    """A filled store, the models that filled it, and `look_at(start)`, which gives the rows of a portion once more."""

    codec: Codec
    tower: Tower
    store: FeatureStore
    look_at: Callable[[int], tuple[Rows, Rows]]


def fill(settings: config.Settings, pictures: Sequence[Image.Image], draws: int, folder: Path) -> Filling:
    """Fill a store in `folder` in this process.

    Args:
        settings: whose first codec and first MLLM it is for.
        pictures: of which the last is held out.
        draws: at how many drawn qualities each is seen.
    """
    codec = Codec.from_pretrained(settings.codec[settings.codecs[0]].weights, fast=None)
    tower = training_tower(load_tower(settings.mllm[settings.mllms[0]].weights, bf16=True))
    guide, guidance = load_tower(settings.guidance.tower), settings.guidance.model_dump(exclude={"tower", "scope"})
    plan = Plan(settings.seed, settings.adapter.qualities, draws=draws, held_out=1, **guidance)
    images = InMemory(pictures)
    store = FeatureStore(folder, images, plan, codec, guide, tower)
    look_at = partial(store.look_at, images.read, tower.geometry.output_size[0], codec, guide, tower)
    return Filling(codec, tower, store, look_at)
