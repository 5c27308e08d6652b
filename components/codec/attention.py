"""The simplified attention of Cheng et al. 2020 (section 3.3, figure 5): residual units, gated by residual units.

The tensors have CompressAI's names, so that published weights fit.
"""

import torch
from torch import Tensor, nn


class ResidualUnit(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 around half of the channels, added to the features (B, C, H, W)."""

    def __init__(self, channels: int):
        super().__init__()
        middle = channels // 2
        self.conv = nn.Sequential(
            nn.Conv2d(channels, middle, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(middle, middle, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(middle, channels, 1),
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.relu(x_BCHW + self.conv(x_BCHW))


class GatedUnits(nn.Module):
    """What attention adds to the features: `conv_a` says what, `conv_b` how much of it."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv_a = nn.Sequential(*(ResidualUnit(channels) for _ in range(3)))
        self.conv_b = nn.Sequential(*(ResidualUnit(channels) for _ in range(3)), nn.Conv2d(channels, channels, 1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.conv_a(x_BCHW) * torch.sigmoid(self.conv_b(x_BCHW))


class AttentionBlock(GatedUnits):
    """The features with what attention adds to them."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW + super().forward(x_BCHW)
