"""How likely is what would be coded: for training, where noise stands for rounding, and for rates.

Ballé et al. 2018, "Variational image compression with a scale hyperprior": section 2 has the noise, appendix 6.2 the
Gaussian of unit-wide bins.
"""

import torch
from torch import Tensor

SMALLEST_LIKELIHOOD = 1e-9  # its logarithm must stay finite


class _AtLeast(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bound = bound
        return x.clamp(min=bound)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return gradient * ((x >= ctx.bound) | (gradient < 0)), None


def at_least(x: Tensor, bound: float) -> Tensor:
    """The larger of both. Below the bound a gradient passes only if following it leads upwards."""
    return _AtLeast.apply(x, bound)


def as_coded(x: Tensor, training: bool, centers: Tensor | None = None) -> Tensor:
    """What a decoder would see: rounded around the centers; in training, noise as wide as a rounding step instead."""
    if training:
        return x + torch.empty_like(x).uniform_(-0.5, 0.5)
    return torch.round(x) if centers is None else torch.round(x - centers) + centers


def gaussian_likelihood(
    y_BCHW: Tensor, scales_BCHW: Tensor, means_BCHW: Tensor, smallest_scale: float, training: bool
) -> Tensor:
    """Chances (B, C, H, W) of the latent's bins under a Gaussian of each entry's own mean and scale.

    Args:
        y_BCHW: the latent, neither rounded nor disturbed.
        scales_BCHW, means_BCHW: of the Gaussians.
        smallest_scale: what smaller scales count as.
        training: whether noise stands for rounding.
    """
    scales_BCHW = at_least(scales_BCHW, smallest_scale)
    away_BCHW = (as_coded(y_BCHW, training, means_BCHW) - means_BCHW).abs()  # the lower tail keeps its digits
    chances = _below((0.5 - away_BCHW) / scales_BCHW) - _below((-0.5 - away_BCHW) / scales_BCHW)
    return at_least(chances, SMALLEST_LIKELIHOOD)


def _below(x: Tensor) -> Tensor:
    """The standard normal distribution function."""
    return 0.5 * torch.erfc(-(0.5**0.5) * x)
