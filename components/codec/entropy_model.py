"""ELIC's space-channel context model: what the decoder expects of the next part of the latent.

The latent is coded in uneven channel groups; in each group first the anchors (one colour of a checkerboard), then the
rest, which sees the anchors around it (He et al. 2022). A hyper latent z, coded first, tells the broad shape.

All predictions are made for the latent *before* its gain, in units of each channel's own spread: so the same small
networks serve ten qualities, and the gain merely rescales what they say. `forward` is for training; the wire runs the
same pieces one after another, in integers (`exact_elic.py`).
"""

import torch
from torch import Tensor, nn

from components.codec.checkerboard import Checkerboard
from components.codec.config import CodecConfig
from components.codec.gains import look_up
from components.codec.hyperprior import Hyperprior, rounded
from components.codec.transforms import double, half


def anchors(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Boolean (height, width): the positions coded first, those whose row + column is even."""
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    return (rows[:, None] + columns[None, :]) % 2 == 0


class EntropyModel(Hyperprior):
    """Hyperprior and space-channel context over a latent of `config.latent_channels` channels."""

    def __init__(self, config: CodecConfig):
        super().__init__(config)
        m, z, side, kernel = config.latent_channels, config.hyper_channels, config.side_channels, config.kernel
        self.hyper_analysis = nn.Sequential(
            nn.Conv2d(m, z, 3, padding=1), nn.ReLU(), half(z, z, kernel), nn.ReLU(), half(z, z, kernel)
        )
        self.hyper_synthesis = nn.Sequential(
            double(z, z, kernel), nn.ReLU(), double(z, z, kernel), nn.ReLU(), nn.Conv2d(z, side, 3, padding=1)
        )
        self.quality_side_QS = nn.Parameter(torch.zeros(config.qualities, side))

        self.channel_context, self.spatial_context, self.aggregation = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        context, hidden = config.context_channels, config.hidden_channels
        for k, size in enumerate(config.groups):
            before = sum(config.groups[:k])
            if k > 0:
                self.channel_context.append(nn.Sequential(nn.Conv2d(before, context, 3, padding=1), nn.ReLU()))
            self.spatial_context.append(Checkerboard(size, context, config.context_kernel))
            inputs = side + context * (1 + (k > 0))
            last = nn.Conv2d(hidden, 2 * size, 1)
            nn.init.zeros_(last.weight)  # the first guess is the channel's own mean and spread
            nn.init.zeros_(last.bias)
            self.aggregation.append(nn.Sequential(nn.Conv2d(inputs, hidden, 1), nn.ReLU(), last))

    # The pieces, shared by training and the wire.

    def side(self, z_hat_BCHW: Tensor, quality_map_BHW: Tensor) -> Tensor:
        """Side information (B, S, h, w) for the latent, from the decoded z and the qualities."""
        height, width = quality_map_BHW.shape[-2:]
        features = self.hyper_synthesis(z_hat_BCHW / self.hyper_gain.at(self.hyper_map(quality_map_BHW)))
        return features[..., :height, :width] + look_up(self.quality_side_QS, quality_map_BHW)

    def before(self, k: int, side_BSHW: Tensor, decoded_BCHW: Tensor) -> Tensor:
        """What is known of group k before any of it is decoded; `decoded` in units of spread."""
        if k == 0:
            return side_BSHW
        return torch.cat([side_BSHW, self.channel_context[k - 1](decoded_BCHW[:, : self.group(k).start])], 1)

    def parameters_of(self, k: int, before_BFHW: Tensor, anchors_BGHW: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the scale of group k, in units of spread, given its anchors (or none yet)."""
        if anchors_BGHW is None:
            shape = (before_BFHW.shape[0], self.config.context_channels, *before_BFHW.shape[-2:])
            around = before_BFHW.new_zeros(shape)
        else:
            around = self.spatial_context[k](anchors_BGHW)
        mean, log_scale = self.aggregation[k](torch.cat([before_BFHW, around], 1)).chunk(2, 1)
        return mean, log_scale

    def forward(self, y_BCHW: Tensor, gain_BCHW: Tensor, quality_map_BHW: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Decoded latent (straight-through) and the likelihoods of what would be coded.

        Args:
            y_BCHW: latent after its gain.
            gain_BCHW: that gain, at every place.
            quality_map_BHW: int64, quality of every latent position.
        """
        to_unit = 1 / (gain_BCHW * self.spread())
        z_BCHW = self.hyper_latent(y_BCHW * to_unit, quality_map_BHW)
        means, scales = self.hyper_prior(quality_map_BHW)
        z_likelihood = self.likelihood(z_BCHW, scales, means)
        side_BSHW = self.side(rounded(z_BCHW - means) + means, quality_map_BHW)

        first = anchors(*y_BCHW.shape[-2:], device=y_BCHW.device)
        decoded, likelihoods = y_BCHW[:, :0], []  # decoded: in units of spread
        for k in range(len(self.config.groups)):
            channels = self.group(k)
            y, unit = y_BCHW[:, channels], to_unit[:, channels]
            known = self.before(k, side_BSHW, decoded)
            mean_a, log_a = self.parameters_of(k, known, None)
            anchor_hat = (rounded(y - mean_a / unit) * unit + mean_a) * first
            mean_b, log_b = self.parameters_of(k, known, anchor_hat)
            mean = torch.where(first, mean_a, mean_b) / unit
            scale = torch.where(first, log_a, log_b).clamp(-9, 5).exp() / unit
            likelihoods.append(self.likelihood(y, scale, mean))
            decoded = torch.cat([decoded, (rounded(y - mean) + mean) * unit], 1)
        return decoded / to_unit, {"y": torch.cat(likelihoods, 1), "z": z_likelihood}
