"""What one unit means to an adapter: the sizes of what it reads and of what it is to say, measured on training data."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from components.adapter.latent_adapter import fill_grid


class Units(NamedTuple):
    """What `LatentAdapter.set_scales` takes, float32.

    Attributes:
        latent_mean_C, latent_std_C: of each channel of the decoded latents.
        output_std_D: root mean square of E(x) - E(x^) in each feature.
        quality_scale_Q: the same at the patches of each quality, in units of all; where a quality was not seen, between
            its neighbours'.
    """

    latent_mean_C: Tensor
    latent_std_C: Tensor
    output_std_D: Tensor
    quality_scale_Q: Tensor


def measure_units(batch: dict[str, Tensor], grid: tuple[int, int], qualities: int) -> Units:
    """Measure on a batch of a feature store.

    Args:
        batch: `y_hat` (B, C, h, w), `quality_map` (B, h, w), `patches` and `decoded` (B, N, D).
        grid: rows and columns of the N patches.
        qualities: how many the codec has.
    """
    y_hat, lost = batch["y_hat"].double(), (batch["patches"] - batch["decoded"]).double()
    energy_BN = lost.square().mean(2)
    maps_BQhw = F.one_hot(batch["quality_map"], qualities).movedim(3, 1).double()
    weights_QBN = fill_grid(maps_BQhw, grid).flatten(2).transpose(0, 1)  # how much of a patch has which quality
    weight_Q = weights_QBN.sum((1, 2)).numpy()
    share_Q = (weights_QBN * energy_BN).sum((1, 2)).numpy() / energy_BN.mean().clamp(min=1e-12).item()
    seen = np.flatnonzero(weight_Q > 0)
    scale_Q = np.interp(np.arange(qualities), seen, np.sqrt(share_Q[seen] / weight_Q[seen]))
    return Units(
        latent_mean_C=y_hat.mean((0, 2, 3)).float(),
        latent_std_C=y_hat.std((0, 2, 3), correction=0).float(),
        output_std_D=lost.square().mean((0, 1)).sqrt().float(),
        quality_scale_Q=torch.from_numpy(scale_Q).float(),
    )
