"""Training examples whose picture the tower does not see: the adapter says everything (paper, Fig. 10, w/o Rec.)."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from components.training.feature_store import FeatureStore


class WithoutPictures:
    """A feature store (all that a stage asks of one) in which E(x^), `decoded`, is zero."""

    def __init__(self, store: FeatureStore):
        self._store = store
        self.plan = store.plan

    def __len__(self) -> int:
        return len(self._store)

    def order(self, epoch: int) -> np.ndarray:
        """As the store's."""
        return self._store.order(epoch)

    def batch(self, epoch: int, examples: np.ndarray) -> dict[str, Tensor]:
        """As the store's, but for `decoded`; so are those below."""
        return _hide(self._store.batch(epoch, examples))

    def sample(self) -> dict[str, Tensor]:
        return _hide(self._store.sample())

    def held_out(self, quality: int, size: int) -> Iterator[dict[str, Tensor]]:
        return map(_hide, self._store.held_out(quality, size))


def _hide(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return batch | {"decoded": torch.zeros_like(batch["decoded"])}
