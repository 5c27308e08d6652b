"""Convolutions as exact as in float32, out of products in bfloat16.

A number of float32 is the sum of a bfloat16, `high`, and what is left, rounded to another, `low`: sixteen bits. Of the
four products of two such sums the last, low times low, is below what float32 keeps. Libraries round the result of each
product to bfloat16, though they sum in float32; so the first is made twice, the second time less what the first gave:
that leaves what was rounded away.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROWS = 4  # of features that are split at once


def splits_pay(device: torch.device) -> bool:
    """Whether four products in bfloat16 are faster than one in float32: on processors with AMX."""
    known = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return device.type == "cpu" and known is not None and known() and torch.backends.mkldnn.is_available()


class SplitConv:
    """A convolution for inference, float32 in and out.

    Args:
        conv: whose weights are copied.
    """

    def __init__(self, conv: nn.Conv2d):
        self.out_channels, self.kernel_size = conv.out_channels, conv.kernel_size
        self.stride, self.padding, self.transposed = conv.stride, conv.padding, False
        weight = conv.weight.detach().contiguous(memory_format=torch.channels_last)
        self.high, self.low = split(weight)
        self.bias_1O11 = conv.bias.detach()[None, :, None, None].clone()

    def __call__(self, x_BCHW: Tensor) -> Tensor:
        high_BCHW, low_BCHW = split(x_BCHW)
        first = self._product(high_BCHW, self.high)
        rest = self._product(high_BCHW, self.high, -first)
        rest = self._product(high_BCHW, self.low, rest)
        rest = self._product(low_BCHW, self.high, rest)
        return first.float().add_(rest).add_(self.bias_1O11)

    def _product(self, x_BCHW: Tensor, weight: Tensor, more_BOhw: Tensor | None = None) -> Tensor:
        """bfloat16 of the convolution plus `more`, summed in float32."""
        if more_BOhw is None:
            return F.conv2d(x_BCHW, weight, None, self.stride, self.padding)
        return torch.ops.mkldnn._convolution_pointwise.binary(
            x_BCHW, more_BOhw, weight, None, self.padding, self.stride, (1, 1), 1, "add", 1.0, None, [], None
        )


def split(x: Tensor) -> tuple[Tensor, Tensor]:
    """Two bfloat16 whose sum is x but for its last bits."""
    high, low = (torch.empty_like(x, dtype=torch.bfloat16) for _ in range(2))
    for start in range(0, x.shape[2], ROWS):  # what lies in between stays in the cache
        rows = slice(start, start + ROWS)
        high[:, :, rows] = x[:, :, rows]
        low[:, :, rows] = x[:, :, rows] - high[:, :, rows]
    return high, low
