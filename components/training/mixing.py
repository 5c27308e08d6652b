"""Views of two images in one: a rectangle of each is taken from another (CutMix, Yun et al. 2019, for features).

Codec and patch embedding look only around each place, so the joined features are nearly those of a joined picture, and
cost nothing. Layers of attention see an image that never was: the adapter cannot learn the training images by heart.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.training.loop import Examples

SIDES = (0.25, 0.75)  # of a rectangle, as shares of the image's


class MixedViews:
    """Training examples like `views` (a `FeatureStore`), without `features`, which a mixed image does not have.

    Which images are mixed, with what and where is a pure function of (seed, epoch, image).

    Args:
        share: of the images that are mixed.
        grid: rows and columns of the tower's patches.
    """

    def __init__(self, views: Examples, share: float, grid: tuple[int, int], seed: int):
        self.views, self.share, self.grid, self.seed = views, share, grid, seed

    def __len__(self) -> int:
        return len(self.views)

    def order(self, epoch: int) -> np.ndarray:
        """As the views'."""
        return self.views.order(epoch)

    def batch(self, epoch: int, examples: np.ndarray) -> dict[str, Tensor]:
        """`y_hat`, `quality_map`, `patches` and `decoded` as `FeatureStore.batch` gives them, mixed."""
        examples = np.asarray(examples)
        draws = [self._draw(epoch, int(example)) for example in examples]
        others = np.array([other for other, _ in draws])
        boxes_B4 = np.stack([box for _, box in draws])
        mine, theirs = self.views.batch(epoch, examples), self.views.batch(epoch, others)

        patches_BN1 = _inside(boxes_B4, self.grid).flatten(1)[..., None]
        latents_Bhw = _inside(boxes_B4, tuple(mine["quality_map"].shape[1:]))
        places = {"y_hat": latents_Bhw[:, None], "quality_map": latents_Bhw}
        places |= {"patches": patches_BN1, "decoded": patches_BN1}
        return {name: torch.where(taken, theirs[name], mine[name]) for name, taken in places.items()}

    def _draw(self, epoch: int, example: int) -> tuple[int, NDArray[np.float64]]:
        """Another image, and what is taken of it: top, left, bottom and right as shares; nothing is an empty box."""
        # The last number is this module's own: draws.py has the same three before it.
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, epoch, example, 1])))
        other, sides = int(random.integers(len(self))), random.uniform(*SIDES, 2)
        corner = random.random(2) * (1 - sides)
        if random.random() >= self.share:
            sides = -np.ones(2)
        return other, np.concatenate([corner, corner + sides])


def _inside(boxes_B4: NDArray[np.float64], grid: tuple[int, int]) -> Tensor:
    """Which cells of a grid have their centres in each box: bool (B, rows, columns)."""
    y, x = ((np.arange(cells) + 0.5) / cells for cells in grid)
    top, left, bottom, right = boxes_B4.T[..., None]
    rows, columns = (top <= y) & (y < bottom), (left <= x) & (x < right)
    return torch.from_numpy(rows[:, :, None] & columns[:, None])
