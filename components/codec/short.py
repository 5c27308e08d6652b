"""Convolutions in a short type that rectify their result, or add it to features, before it leaves the cache.

On a processor oneDNN does so; on a card PyTorch's operations follow one another.
"""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from components.codec.attention import GatedUnits
from components.codec.transforms import Bottleneck


class ShortConv:
    """A convolution for inference; input, output and everything it is added to in one type.

    Args:
        conv: whose weights are copied.
        dtype: the type.
    """

    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d, dtype: torch.dtype):
        self.conv = laid_out(conv, dtype)
        self.out_channels, self.kernel_size, self.transposed = conv.out_channels, conv.kernel_size, conv.transposed
        on_cpu = conv.weight.device.type == "cpu" and torch.backends.mkldnn.is_available()
        self.joined = on_cpu and not conv.transposed and dtype in (torch.float32, torch.bfloat16)
        self._options = (conv.padding, conv.stride, conv.dilation, conv.groups)

    def __call__(self, x_BCHW: Tensor) -> Tensor:
        """The convolution."""
        return self.conv(x_BCHW)

    def rectified(self, x_BCHW: Tensor) -> Tensor:
        """Its positive part."""
        if not self.joined:
            return self.conv(x_BCHW).relu_()
        weight, bias = self.conv.weight, self.conv.bias
        return torch.ops.mkldnn._convolution_pointwise(x_BCHW, weight, bias, *self._options, "relu", [], None)

    def rectified_sum(self, features_BOHW: Tensor, x_BCHW: Tensor) -> Tensor:
        """The positive part of the features plus the convolution of `x`; the features stay."""
        if not self.joined:
            return self.conv(x_BCHW).add_(features_BOHW).relu_()
        weight, bias = self.conv.weight, self.conv.bias
        return torch.ops.mkldnn._convolution_pointwise.binary(
            x_BCHW, features_BOHW, weight, bias, *self._options, "add", 1.0, "relu", [], None
        )

    def add_to(self, features_BOHW: Tensor, x_BCHW: Tensor) -> None:
        """Add the convolution of `x` to the features, in place."""
        if not self.joined:
            features_BOHW.add_(self.conv(x_BCHW))
            return
        weight, bias = self.conv.weight, self.conv.bias
        torch.ops.mkldnn._convolution_pointwise_.binary(
            features_BOHW, x_BCHW, weight, bias, *self._options, "add", 1.0, None, [], None
        )


class ShortBottleneck:
    """A bottleneck that adds to all that it is given: 1 x 1, 3 x 3, 1 x 1.

    Args:
        bottleneck: or what is inside a residual unit, which has the same layers.
        dtype: the type.
    """

    def __init__(self, bottleneck: nn.Sequential, dtype: torch.dtype):
        self.first, self.middle, self.last = (ShortConv(bottleneck[place], dtype) for place in (0, 2, 4))
        self.reach = bottleneck[2].padding[0]

    def __call__(self, x_BCHW: Tensor, targets: Iterable[Tensor]) -> None:
        """Add what the bottleneck makes of `x`, which may be one of the targets."""
        inside_BCHW = self._inside(x_BCHW)
        for target_BCHW in targets:
            self.last.add_to(target_BCHW, inside_BCHW)

    def as_unit(self, x_BCHW: Tensor) -> Tensor:
        """What a residual unit makes of `x`: the positive part of both together."""
        return self.last.rectified_sum(x_BCHW, self._inside(x_BCHW))

    def _inside(self, x_BCHW: Tensor) -> Tensor:
        return self.middle.rectified(self.first.rectified(x_BCHW))


class ShortAttention:
    """Attention that adds to all that it is given."""

    def __init__(self, attention: GatedUnits, dtype: torch.dtype):
        *gate, last = attention.conv_b
        self.units, self.gate = ([ShortBottleneck(u.conv, dtype) for u in half] for half in (attention.conv_a, gate))
        self.last = ShortConv(last, dtype)
        self.reach = sum(unit.reach for unit in self.units)  # the gate reads as far

    def __call__(self, x_BCHW: Tensor, targets: Iterable[Tensor]) -> None:
        """Add what attention makes of `x`, which may be one of the targets."""
        added_BCHW, gate_BCHW = x_BCHW, x_BCHW
        for unit, other in zip(self.units, self.gate, strict=True):
            added_BCHW, gate_BCHW = unit.as_unit(added_BCHW), other.as_unit(gate_BCHW)
        added_BCHW.mul_(self.last(gate_BCHW).sigmoid_())
        for target_BCHW in targets:
            target_BCHW.add_(added_BCHW)


def short_branches(branches: Iterable[nn.Module], dtype: torch.dtype) -> list[ShortBottleneck | ShortAttention]:
    """The branches of an ELIC at one resolution."""
    return [(ShortBottleneck if isinstance(b, Bottleneck) else ShortAttention)(b, dtype) for b in branches]


def laid_out(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy in this type, channels last, for inference."""
    copied = copy.deepcopy(module).to(dtype=dtype, memory_format=torch.channels_last).eval().requires_grad_(False)
    for layer in copied.modules():
        if isinstance(layer, nn.ReLU):
            layer.inplace = True
    return copied
