"""Scenes of one kind that an MLLM is trained on, and how many of them make a step.

Kinds differ tenfold in how many tokens one is, so not as many of each are taken at once.
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from pipelines.pretrain.material import Material
from pipelines.pretrain.packing import ROOM

LONG = 250
"""Tokens. Behind a prompt of more, twice the room for questions: reading it is paid anyway."""
WHOLE_BATCH = 512
"""Tokens. Longer sequences come in smaller batches, so that a step takes about as much memory and time as any other."""


@dataclass
class Group:
    """Scenes of one style and detail, or clips: what the tower makes of their views, and their lessons.

    `length` is the number of tokens that stand before the questions.
    """

    material: Material
    features_NVTD: Tensor
    lessons_NCQL: np.ndarray
    order: np.ndarray
    length: int

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """The next scenes of an endless shuffled row."""
        if len(self.order) < count:
            self.order = np.concatenate([self.order, rng.permutation(len(self.features_NVTD))])
        picks, self.order = self.order[:count], self.order[count:]
        return picks

    @property
    def room(self) -> int:
        """For so many tokens of questions."""
        return ROOM * (2 if self.length > LONG else 1)

    def share(self, batch: int) -> int:
        """How many of a batch of ordinary images are as long as a batch of these may be."""
        return max(min(batch, batch * WHOLE_BATCH // (self.length + self.room)), 1)
