"""The convolution through which one half of a checkerboard sees the other (He et al. 2021, section 3.1)."""

import torch
from torch import Tensor, nn


class Checkerboard(nn.Conv2d):
    """A convolution that sees only places an odd number of steps away, so of the other colour; odd kernels.

    Its hidden taps are set to zero in place, and not by a product: their gradients count when gradients are clipped, as
    they did when the shipped weights were trained. The mask is part of the weights' files.
    """

    mask: Tensor

    def __init__(self, channels_in: int, channels_out: int, kernel: int):
        super().__init__(channels_in, channels_out, kernel, padding=kernel // 2)
        places = torch.arange(kernel)
        visible = (places[:, None] + places) % 2 == 1
        self.register_buffer("mask", visible.to(self.weight.dtype).expand_as(self.weight).clone())

    def forward(self, x_BCHW: Tensor) -> Tensor:
        self.weight.data.mul_(self.mask)
        return super().forward(x_BCHW)
