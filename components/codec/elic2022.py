"""The ELIC that others publish: CompressAI's `Elic2022Official` (He et al. 2022), with gains per location added.

Layers are in CompressAI's order and have its names, so that a published checkpoint's tensors fit as they are
(`published.py`); what it was trained without, the gains, start at one and change nothing. From `elic.py` it differs in
shape only: attention at 1/4 of the image's size and on the latent, no shift of the image, a learned density of z,
contexts of three layers.
"""

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, model_validator
from torch import Tensor, nn

from components.codec.attention import AttentionBlock
from components.codec.config import LAMBDAS, check_sizes
from components.codec.elic2022_context import Elic2022Context
from components.codec.gains import Gain
from components.codec.transforms import double, half

ANALYSIS_GAINS = (3, 8, 12)  # after these layers of g_a: the last at 1/2, 1/4 and 1/8 of the image's size
SYNTHESIS_GAINS = (1, 5, 10)  # after these of g_s: the first at 1/8, 1/4 and 1/2


class Elic2022Config(BaseModel):
    """Sizes of a published ELIC. The defaults are the paper's: 33.8 million parameters without gains."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: Literal["elic2022"] = "elic2022"
    width: int = 192  # channels of all features but the latent; CompressAI's N
    latent_channels: int = 320  # CompressAI's M
    groups: tuple[int, ...] = (16, 16, 32, 64, 192)
    lambdas: tuple[float, ...] = LAMBDAS

    @model_validator(mode="after")
    def _consistent(self) -> "Elic2022Config":
        check_sizes(self.groups, self.latent_channels, self.lambdas)
        return self

    @property
    def qualities(self) -> int:
        return len(self.lambdas)

    @property
    def hyper_channels(self) -> int:
        return self.width


class Elic2022(nn.Module):
    """The codec's networks, with the interface of `Elic`: images in [0, 1], sides multiples of 16."""

    def __init__(self, config: Elic2022Config):
        super().__init__()
        self.config = config
        n, m = config.width, config.latent_channels
        self.g_a = nn.Sequential(
            *(half(3, n, 5), *_blocks(n)),
            *(half(n, n, 5), *_blocks(n), AttentionBlock(n)),
            *(half(n, n, 5), *_blocks(n)),
            *(half(n, m, 5), AttentionBlock(m)),
        )
        self.g_s = nn.Sequential(
            *(AttentionBlock(m), double(m, n, 5), *_blocks(n)),
            *(double(n, n, 5), AttentionBlock(n), *_blocks(n)),
            *(double(n, n, 5), *_blocks(n)),
            double(n, 3, 5),
        )
        ones = torch.ones(config.qualities, dtype=torch.float64)
        self.analysis_gain = nn.ModuleList(Gain(n, ones) for _ in ANALYSIS_GAINS)
        self.latent_gain = Gain(m, ones)
        self.latent_inverse = Gain(m, ones)
        self.synthesis_inverse = nn.ModuleList(Gain(n, ones) for _ in SYNTHESIS_GAINS)
        self.entropy = Elic2022Context(config)

    def analyse(self, x_B3HW: Tensor, quality_map_BHW: Tensor) -> Tensor:
        """Image -> latent after its gain, (B, C, H/16, W/16)."""
        features = _through(self.g_a, x_B3HW, ANALYSIS_GAINS, self.analysis_gain, quality_map_BHW)
        return self.latent_gain(features, quality_map_BHW)

    def ungain(self, y_hat_BCHW: Tensor, quality_map_BHW: Tensor) -> Tensor:
        """Decoded latent -> what the synthesis and the adapter read (inverse gain applied)."""
        return self.latent_inverse(y_hat_BCHW, quality_map_BHW)

    def synthesize(self, latent_BCHW: Tensor, quality_map_BHW: Tensor) -> Tensor:
        """Latent after the inverse gain -> image, not clipped, (B, 3, 16h, 16w)."""
        return _through(self.g_s, latent_BCHW, SYNTHESIS_GAINS, self.synthesis_inverse, quality_map_BHW)

    def forward(self, x_B3HW: Tensor, quality_map_BHW: Tensor) -> dict:
        """One pass in floats.

        Returns:
            x_hat (B, 3, H, W), not clipped; likelihoods {"y", "z"}; y_hat (B, C, h, w) after the inverse gain.
        """
        y_BCHW = self.analyse(x_B3HW, quality_map_BHW)
        y_hat_BCHW, likelihoods = self.entropy(y_BCHW, self.latent_gain.at(quality_map_BHW))
        latent_BCHW = self.ungain(y_hat_BCHW, quality_map_BHW)
        return {
            "x_hat": self.synthesize(latent_BCHW, quality_map_BHW),
            "likelihoods": likelihoods,
            "y_hat": latent_BCHW,
        }


class NamedBottleneck(nn.Module):
    """ELIC's residual bottleneck as published: 1 x 1, 3 x 3, 1 x 1, added to the features (He et al. 2022)."""

    def __init__(self, channels: int):
        super().__init__()
        middle = channels // 2
        self.conv1 = nn.Conv2d(channels, middle, 1)
        self.conv2 = nn.Conv2d(middle, middle, 3, padding=1)
        self.conv3 = nn.Conv2d(middle, channels, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        inside = self.conv2(self.conv1(x_BCHW).relu()).relu()
        return self.conv3(inside) + x_BCHW


def _blocks(channels: int) -> list[nn.Module]:
    return [NamedBottleneck(channels) for _ in range(3)]


def _through(
    layers: nn.Sequential, features: Tensor, places: tuple[int, ...], gains: nn.ModuleList, quality_map_BHW: Tensor
) -> Tensor:
    """Layers in turn, each gain after the layer at its place."""
    at = dict(zip(places, gains, strict=True))
    for k, layer in enumerate(layers):
        features = layer(features)
        if k in at:
            features = at[k](features, quality_map_BHW)
    return features
