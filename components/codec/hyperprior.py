"""What ELIC's and DCAE's entropy models share: the coding of z, and the units that they predict in.

Predictions are made for the latent *before* its gain, in units of each channel's own spread: so the same small networks
serve ten qualities, and the gain merely rescales what they say.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.codec.config import HYPER_STRIDE, CodecConfig, DcaeConfig
from components.codec.gains import Gain, look_up
from components.codec.likelihood import gaussian_likelihood

SMALLEST_SCALE = 0.11  # below it a Gaussian is a certain zero at 16-bit precision


def rounded(x: Tensor) -> Tensor:
    """Round with the gradient of the identity (straight-through)."""
    return x + (torch.round(x) - x).detach()


class Hyperprior(nn.Module):
    """The coded side of the hyper latent z. A subclass sets `hyper_analysis`, which finds it."""

    hyper_analysis: nn.Module

    def __init__(self, config: CodecConfig | DcaeConfig):
        super().__init__()
        self.config = config
        z = config.hyper_channels
        steps = torch.tensor(config.lambdas, dtype=torch.float64).rsqrt()
        self.hyper_gain = Gain(z, 2 * (steps / steps[0]).sqrt())
        self.hyper_mean_QC = nn.Parameter(torch.zeros(config.qualities, z))
        self.hyper_log_scale_QC = nn.Parameter(torch.zeros(config.qualities, z))
        self.log_spread_C = nn.Parameter(torch.zeros(config.latent_channels))  # typical size of each latent channel

    def spread(self) -> Tensor:
        """Typical size of each latent channel, (1, C, 1, 1)."""
        return self.log_spread_C.exp()[None, :, None, None]

    def hyper_map(self, quality_map_BHW: Tensor) -> Tensor:
        """Quality of each hyper position: that of its first latent position; (B, ceil(h/4), ceil(w/4))."""
        return quality_map_BHW[:, ::HYPER_STRIDE, ::HYPER_STRIDE]

    def hyper_latent(self, unit_BCHW: Tensor, quality_map_BHW: Tensor) -> Tensor:
        """z (B, Cz, ceil(h/4), ceil(w/4)), not yet rounded, from the latent in units of its spread."""
        height, width = unit_BCHW.shape[-2:]
        padded = F.pad(unit_BCHW, (0, -width % HYPER_STRIDE, 0, -height % HYPER_STRIDE), mode="replicate")
        z_BCHW = self.hyper_analysis(padded)
        return z_BCHW * self.hyper_gain.at(self.hyper_map(quality_map_BHW))

    def hyper_prior(self, quality_map_BHW: Tensor) -> tuple[Tensor, Tensor]:
        """Means and scales of z, given only the quality of each place."""
        places = self.hyper_map(quality_map_BHW)
        return look_up(self.hyper_mean_QC, places), look_up(self.hyper_log_scale_QC.exp(), places)

    def likelihood(self, y_BCHW: Tensor, scales_BCHW: Tensor, means_BCHW: Tensor) -> Tensor:
        """Chances (B, C, H, W) of what would be coded, given Gaussians; in training, of values with noise."""
        return gaussian_likelihood(y_BCHW, scales_BCHW, means_BCHW, SMALLEST_SCALE, self.training)

    def group(self, k: int) -> slice:
        """The channels of group k."""
        start = sum(self.config.groups[:k])
        return slice(start, start + self.config.groups[k])
