"""DCAE's entropy model: slices of channels, each predicted from the hyper latent, the slices before, and a dictionary.

A slice is decoded at all places at once. What rounding took from it is then guessed and given back (`residual`), before
the next slice sees it (Lu et al. 2025, section 3.2). Predictions are in units of each channel's spread
(`hyperprior.py`). `forward` is for training; the wire (`dcae_wire.py`) calls the same pieces one after another, in
float64.
"""

import torch
from torch import Tensor, nn

from components.codec.config import DcaeConfig
from components.codec.dictionary import DictionaryAttention
from components.codec.factorized import FactorizedDensity
from components.codec.gains import look_up
from components.codec.hyperprior import Hyperprior, rounded
from components.codec.swin import Swin
from components.codec.transforms import Bottleneck, Branches, double, half

LARGEST_RESIDUAL = 0.5  # of a rounding step


class DcaeEntropy(Hyperprior):
    """Hyperprior, slices and dictionary over a latent of `config.latent_channels` channels."""

    def __init__(self, config: DcaeConfig):
        super().__init__(config)
        m, z, width, side = config.latent_channels, config.hyper_channels, config.hyper_width, config.side_channels

        def swin() -> Swin:
            return Swin(width, 1, config.hyper_head, config.hyper_window, config.hyper_mlp_ratio)

        def bottlenecks() -> list[Bottleneck]:
            return [Bottleneck(width) for _ in range(config.blocks)]

        self.hyper_analysis = nn.Sequential(
            half(m, width, config.kernel), Branches([*bottlenecks(), swin()]), half(width, z, 3)
        )
        self.hyper_scales, self.hyper_means = (
            nn.Sequential(double(z, width, 3), Branches([swin(), *bottlenecks()]), double(width, side, config.kernel))
            for _ in range(2)
        )
        self.density = FactorizedDensity(z) if config.learned_density else None
        self.quality_side_QS = nn.Parameter(torch.zeros(config.qualities, 2 * side))

        self.dictionary_ND = nn.Parameter(
            torch.randn(config.dictionary, config.dictionary_heads * config.dictionary_head)
        )
        self.attention, self.means, self.scales, self.residuals = (nn.ModuleList() for _ in range(4))
        for k, size in enumerate(config.groups):
            known = 2 * side + self.group(k).start
            self.attention.append(
                DictionaryAttention(
                    known,
                    config.prior_channels,
                    config.dictionary_heads,
                    config.dictionary_head,
                    config.dictionary_mlp_ratio,
                )
            )
            support = known + config.prior_channels
            self.means.append(_parameters(support, size, config))
            self.scales.append(_parameters(support, size, config))
            self.residuals.append(_parameters(support + size, size, config))

    # The pieces, shared by training and the wire.

    def side(self, z_hat_BCHW: Tensor, quality_map_BHW: Tensor) -> Tensor:
        """Side information (B, 2 S, h, w) for the latent, from the decoded z and the qualities."""
        height, width = quality_map_BHW.shape[-2:]
        z_unit = z_hat_BCHW / self.hyper_gain.at(self.hyper_map(quality_map_BHW))
        features = torch.cat([self.hyper_scales(z_unit), self.hyper_means(z_unit)], 1)[..., :height, :width]
        return features + look_up(self.quality_side_QS, quality_map_BHW)

    def support(self, side_BSHW: Tensor, decoded_BCHW: Tensor, k: int) -> Tensor:
        """What is known of slice k; `decoded`: the slices before, in units of spread."""
        known = torch.cat([side_BSHW, decoded_BCHW[:, : self.group(k).start]], 1)
        return torch.cat([known, self.attention[k](known, self.dictionary_ND)], 1)

    def parameters_of(self, k: int, support_BFHW: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and scale of slice k, in units of spread."""
        mean, scale = self.means[k](support_BFHW), self.scales[k](support_BFHW)
        return mean, scale.clamp(-9, 5).exp() if self.config.log_scales else scale

    def residual(self, k: int, support_BFHW: Tensor, slice_BGHW: Tensor) -> Tensor:
        """What rounding probably took from slice k, in rounding steps; `slice` in units of spread."""
        return LARGEST_RESIDUAL * torch.tanh(self.residuals[k](torch.cat([support_BFHW, slice_BGHW], 1)))

    def forward(self, y_BCHW: Tensor, gain_BCHW: Tensor, quality_map_BHW: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Decoded latent (straight-through) and the likelihoods of what would be coded.

        Args:
            y_BCHW: latent after its gain.
            gain_BCHW: that gain, at every place.
            quality_map_BHW: int64, quality of every latent position.
        """
        to_unit = 1 / (gain_BCHW * self.spread())
        z_BCHW = self.hyper_latent(y_BCHW * to_unit, quality_map_BHW)
        if self.density is None:
            means, scales = self.hyper_prior(quality_map_BHW)
            z_likelihood = self.likelihood(z_BCHW, scales, means)
        else:
            z_likelihood = self.density(z_BCHW)
            means = self.density.medians
        side_BSHW = self.side(rounded(z_BCHW - means) + means, quality_map_BHW)

        decoded, likelihoods = y_BCHW[:, :0], []  # decoded: in units of spread
        for k in range(len(self.config.groups)):
            y, unit = y_BCHW[:, self.group(k)], to_unit[:, self.group(k)]
            support = self.support(side_BSHW, decoded, k)
            mean, scale = self.parameters_of(k, support)
            mean, scale = mean / unit, scale / unit
            likelihoods.append(self.likelihood(y, scale, mean))
            y_hat = rounded(y - mean) + mean
            y_hat = y_hat + self.residual(k, support, y_hat * unit)
            decoded = torch.cat([decoded, y_hat * unit], 1)
        return decoded / to_unit, {"y": torch.cat(likelihoods, 1), "z": z_likelihood}


def _parameters(channels_in: int, channels_out: int, config: DcaeConfig) -> nn.Sequential:
    """A small network whose first answer is zero: the channel's own mean and spread, and no residual."""
    first, second = config.parameter_channels
    a, b, c = (nn.Conv2d(i, o, k, padding=k // 2) for i, o, k in zip(
        (channels_in, first, second), (first, second, channels_out), config.parameter_kernels, strict=True
    ))
    nn.init.zeros_(c.weight)
    nn.init.zeros_(c.bias)
    return nn.Sequential(a, nn.GELU(), b, nn.GELU(), c)
