"""A feature store's views with the pictures themselves, for methods whose codec learns and so decodes in every step."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from components.training.draws import cut
from components.training.feature_store import FeatureStore, Images


class PixelViews:
    """Training examples as the store's, and `pixels` (B, 3, H, W), float32 in [0, 1].

    Args:
        images: what the store was filled from.
        size: of the pictures, as the store saw them.
    """

    def __init__(self, store: FeatureStore, images: Images, size: int):
        self.store, self.images, self.size = store, images, size

    def __len__(self) -> int:
        return len(self.store)

    def order(self, epoch: int) -> np.ndarray:
        """As the store's."""
        return self.store.order(epoch)

    def batch(self, epoch: int, examples: np.ndarray) -> dict[str, Tensor]:
        """As the store's, with pixels."""
        return self.store.batch(epoch, examples) | {"pixels": self._pixels(examples)}

    def held_out(self, quality: int, size: int) -> Iterator[dict[str, Tensor]]:
        """As the store's, with pixels."""
        first = len(self)
        for batch in self.store.held_out(quality, size):
            following = first + len(batch["patches"])
            yield batch | {"pixels": self._pixels(np.arange(first, following))}
            first = following

    def _pixels(self, numbers: np.ndarray) -> Tensor:
        seed = self.store.plan.seed
        images = zip(map(int, numbers), self.images.read(numbers), strict=True)
        pictures = [np.array(cut(image, self.size, seed, number)) for number, image in images]
        pixels_B3HW = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
        return pixels_B3HW.contiguous(memory_format=torch.channels_last)
