"""The first two strided convolutions of an analysis, and the gain between them, as one convolution.

Without what lies between, they are linear: 5 x 5 after 5 x 5, each with stride 2, is 13 x 13 with stride 4, and as the
image has but three channels it takes a tenth of the multiplications. So it can be in float32 where the two could not.
"""

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.codec.gains import Gain


class Folded:
    """Image -> features at a quarter of its size, float32, of a linear chain.

    Args:
        first, second: the convolutions, with stride 2 and (kernel - 1) // 2 zeros around.
        gain: between them.
    """

    def __init__(self, first: nn.Conv2d, second: nn.Conv2d, gain: Gain):
        self.first, self.second, self.gain = first, second, gain
        self.kernel, self.padding = first.kernel_size[0], first.padding[0]
        # Folded kernels of all qualities are 4 MB at full width. The second's with its gain would be 37 MB, and is made
        # in less than a millisecond: that of the last quality is kept, which pictures of one quality share.
        self._at = lru_cache(maxsize=None)(self._fold)
        self._scaled = lru_cache(maxsize=1)(self._scale)

    def __call__(self, x_B3HW: Tensor, qualities_B: Tensor) -> Tensor:
        """Features (B, C, H/4, W/4) of images, each with the gain of one quality."""
        pairs = zip(x_B3HW.split(1), qualities_B.tolist(), strict=True)
        return torch.cat([self._one(x_13HW, quality) for x_13HW, quality in pairs])

    def _one(self, x_13HW: Tensor, quality: int) -> Tensor:
        (weight, bias), scaled = self._at(quality), self._scaled(quality)
        out_1CHW = F.conv2d(x_13HW, weight, bias, 4, 3 * self.padding)
        # Beyond the borders the second convolution reads zeros, but the first would have made something.
        self._borders(out_1CHW, x_13HW, self.first.weight, scaled)
        turned = (part.transpose(2, 3) for part in (out_1CHW, x_13HW, self.first.weight, scaled))
        self._borders(*turned)
        return out_1CHW

    def _scale(self, quality: int) -> Tensor:
        """The second's kernel with the gain."""
        return self.second.weight * self.gain.log_QC[quality].exp()[None, :, None, None]

    def _fold(self, quality: int) -> tuple[Tensor, Tensor]:
        """Kernel and bias of both."""
        scaled = self._scaled(quality)
        weight = F.conv_transpose2d(scaled, self.first.weight, stride=2)
        bias = self.second.bias + scaled.sum((2, 3)) @ self.first.bias
        return weight.contiguous(memory_format=torch.channels_last), bias

    def _borders(self, out_1CHW: Tensor, x_13HW: Tensor, first: Tensor, second: Tensor) -> None:
        """Put the first and last rows right, one convolution after the other."""
        k, p = self.kernel, self.padding
        across = (p, k - 2 - p)  # zeros left and right
        above, below = (p + 1) // 2, (k - p - 1) // 2  # rows that read beyond the picture
        if above:
            rows = 2 * above - 2 - p + k  # of what is between
            strip_13hW = F.pad(x_13HW[:, :, : 2 * rows - 2 - p + k], (*across, p, 0))
            inside_1Chw = F.conv2d(strip_13hW, first, self.first.bias, 2)
            out_1CHW[:, :, :above] = F.conv2d(F.pad(inside_1Chw, (*across, p, 0)), second, self.second.bias, 2)
        if below:
            rows = 2 * below + p
            strip_13hW = F.pad(x_13HW[:, :, -2 * rows - p :], (*across, 0, k - 2 - p))
            inside_1Chw = F.conv2d(strip_13hW, first, self.first.bias, 2)
            padded_1Chw = F.pad(inside_1Chw, (*across, 0, k - 2 - p))
            out_1CHW[:, :, -below:] = F.conv2d(padded_1Chw, second, self.second.bias, 2)
