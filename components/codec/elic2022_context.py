"""The entropy model of a published ELIC: CompressAI's hyperprior, learned density and space-channel context, in floats.

With gains of one every number is that of CompressAI's latent codecs. The context model sees the latent before its gain,
and what it says is scaled by the gain: so it keeps its meaning when gains are trained.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.codec.checkerboard import Checkerboard
from components.codec.config import HYPER_STRIDE
from components.codec.entropy_model import anchors
from components.codec.factorized import FactorizedDensity
from components.codec.hyperprior import SMALLEST_SCALE, rounded
from components.codec.likelihood import gaussian_likelihood
from components.codec.transforms import double, half

if TYPE_CHECKING:
    from components.codec.elic2022 import Elic2022Config

CONTEXT_WIDTHS = (224, 128)  # of the hidden layers of a channel context


class Elic2022Context(nn.Module):
    """Hyperprior and space-channel context over the latent."""

    def __init__(self, config: "Elic2022Config"):
        super().__init__()
        self.config = config
        n, m = config.width, config.latent_channels
        self.h_a = nn.Sequential(_same(m, n, 3), nn.ReLU(), half(n, n, 5), nn.ReLU(), half(n, n, 5))
        wider = n * 3 // 2
        last = nn.ConvTranspose2d(wider, 2 * n, 3, padding=1)
        self.h_s = nn.Sequential(double(n, n, 5), nn.ReLU(), double(n, wider, 5), nn.ReLU(), last)
        self.bottleneck = FactorizedDensity(n)
        self.channel_context, self.spatial_context, self.aggregation = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        wide, narrow = CONTEXT_WIDTHS
        for k, size in enumerate(config.groups):
            if k > 0:
                before = sum(config.groups[:k])
                layers = _same(before, wide, 5), nn.ReLU(), _same(wide, narrow, 5), nn.ReLU()
                self.channel_context.append(nn.Sequential(*layers, _same(narrow, 2 * size, 5)))
            self.spatial_context.append(Checkerboard(size, 2 * size, 5))
            self.aggregation.append(_aggregation(2 * size * (1 + (k > 0)) + 2 * n, 2 * size, least=2 * n))

    def spread(self) -> Tensor:
        """Typical size of each latent channel, (1, C, 1, 1): here the networks know it."""
        return torch.ones(1, self.config.latent_channels, 1, 1, device=self.h_a[0].weight.device)

    def group(self, k: int) -> slice:
        """The channels of group k."""
        start = sum(self.config.groups[:k])
        return slice(start, start + self.config.groups[k])

    def hyper_latent(self, unit_BCHW: Tensor, quality_map_BHW: Tensor | None = None) -> Tensor:
        """z (B, Cz, ceil(h/4), ceil(w/4)), not yet rounded, from the latent before its gain."""
        height, width = unit_BCHW.shape[-2:]
        padded = F.pad(unit_BCHW, (0, -width % HYPER_STRIDE, 0, -height % HYPER_STRIDE), mode="replicate")
        return self.h_a(padded)

    def side(self, z_hat_BCHW: Tensor, height: int, width: int) -> Tensor:
        """Side information (B, 2 N, h, w) for the latent, from the decoded z."""
        return self.h_s(z_hat_BCHW)[..., :height, :width]

    def before(self, k: int, side_BSHW: Tensor, decoded_BCHW: Tensor) -> Tensor:
        """What is known of group k before any of it is decoded; `decoded` before its gain."""
        if k == 0:
            return side_BSHW
        return torch.cat([self.channel_context[k - 1](decoded_BCHW[:, : self.group(k).start]), side_BSHW], 1)

    def parameters_of(self, k: int, before_BFHW: Tensor, anchors_BGHW: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and scale of group k, before its gain, given its anchors (or none yet)."""
        if anchors_BGHW is None:
            shape = (before_BFHW.shape[0], 2 * self.config.groups[k], *before_BFHW.shape[-2:])
            around = before_BFHW.new_zeros(shape)
        else:
            around = self.spatial_context[k](anchors_BGHW)
        scale, mean = self.aggregation[k](torch.cat([around, before_BFHW], 1)).chunk(2, 1)
        return mean, scale

    def forward(self, y_BCHW: Tensor, gain_BCHW: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Decoded latent (straight-through) and the likelihoods of what would be coded.

        Args:
            y_BCHW: latent after its gain.
            gain_BCHW: that gain, at every place.
        """
        z_BCHW = self.hyper_latent(y_BCHW / gain_BCHW)
        z_likelihood = self.bottleneck(z_BCHW)
        medians = self.bottleneck.medians.detach()
        side_BSHW = self.side(rounded(z_BCHW - medians) + medians, *y_BCHW.shape[-2:])

        first = anchors(*y_BCHW.shape[-2:], device=y_BCHW.device)
        decoded, likelihoods = y_BCHW[:, :0], []  # decoded: before the gain
        for k in range(len(self.config.groups)):
            channels = self.group(k)
            y, gain = y_BCHW[:, channels], gain_BCHW[:, channels]
            known = self.before(k, side_BSHW, decoded)
            mean_a, scale_a = self.parameters_of(k, known, None)
            anchor_hat = (rounded(y - mean_a * gain) / gain + mean_a) * first
            mean_b, scale_b = self.parameters_of(k, known, anchor_hat)
            mean = torch.where(first, mean_a, mean_b) * gain
            scale = torch.where(first, scale_a, scale_b) * gain
            likelihoods.append(gaussian_likelihood(y, scale, mean, SMALLEST_SCALE, self.training))
            decoded = torch.cat([decoded, (rounded(y - mean) + mean) / gain], 1)
        return decoded * gain_BCHW, {"y": torch.cat(likelihoods, 1), "z": z_likelihood}


def _same(channels_in: int, channels_out: int, kernel: int) -> nn.Conv2d:
    """Convolution that keeps height and width."""
    return nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2)


def _aggregation(channels_in: int, channels_out: int, least: int) -> nn.Sequential:
    """Three layers of 1 x 1 whose widths fall evenly, but not below `least` inside."""
    _, *inside, _ = torch.linspace(channels_in, channels_out, 4, device="cpu").int().tolist()  # as CompressAI rounds
    first, second = (max(width, least) for width in inside)
    a, b, c = nn.Conv2d(channels_in, first, 1), nn.Conv2d(first, second, 1), nn.Conv2d(second, channels_out, 1)
    return nn.Sequential(a, nn.ReLU(), b, nn.ReLU(), c)
