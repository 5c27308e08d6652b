"""Gain vectors, selected per location (paper, A.3, equation 2).

A codec for ten rates is one network whose features are scaled by vectors g[l][i]: l the layer, i the quality. Here
i may differ from place to place, so a map of qualities, not one number, drives the codec.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def spread_map(quality_map_BHW: Tensor, factor: int) -> Tensor:
    """Nearest-neighbour enlargement of a map by a whole factor: (B, h, w) -> (B, h*factor, w*factor)."""
    if factor == 1:
        return quality_map_BHW
    return quality_map_BHW.repeat_interleave(factor, 1).repeat_interleave(factor, 2)


def look_up(table_QC: Tensor, quality_map_BHW: Tensor) -> Tensor:
    """The row of every place, (B, C, h, w). On a GPU as a product: summing the gradient of an index takes it longer."""
    if table_QC.is_cuda and torch.is_grad_enabled():
        chosen = F.one_hot(quality_map_BHW, len(table_QC)).to(table_QC.dtype)
        return (chosen @ table_QC).permute(0, 3, 1, 2)
    # Not by indexing: the gradient of that is summed by several threads in whatever order they come.
    return F.embedding(quality_map_BHW, table_QC).permute(0, 3, 1, 2)


class Gain(nn.Module):
    """One positive vector per quality, kept as logarithms so that it stays positive.

    Args:
        channels: channels of the features that it scales.
        start: initial gain of each quality, the same for all channels.
    """

    def __init__(self, channels: int, start: Tensor):
        super().__init__()
        self.log_QC = nn.Parameter(start.log().float()[:, None].repeat(1, channels))

    def at(self, quality_map_BHW: Tensor) -> Tensor:
        """Gains (B, C, h, w) for a map of qualities (B, h, w), int64."""
        return look_up(self.log_QC.exp(), quality_map_BHW)

    def forward(self, x_BCHW: Tensor, quality_map_BHW: Tensor) -> Tensor:
        """Scale features whose size is a whole multiple of the map's."""
        factor = x_BCHW.shape[-1] // quality_map_BHW.shape[-1]
        gains_BCHW = self.at(quality_map_BHW)
        if factor > 1:  # looked up once per latent position: a GPU sums the gradients of repeated look-ups one by one
            gains_BCHW = gains_BCHW.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
        return x_BCHW * gains_BCHW
