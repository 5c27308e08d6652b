"""DCAE's Swin blocks: attention inside windows, then a gated convolutional network (Lu et al. 2025, section 3).

Features are channels-last here, (B, H, W, C). Sizes that are no multiple of the window repeat their last row and column
until they are, as far as the attention alone is concerned.
"""

import torch
from torch import Tensor, nn


class ChannelScale(nn.Module):
    """A learned factor per channel, one at first."""

    def __init__(self, channels: int):
        super().__init__()
        self.scale_C = nn.Parameter(torch.ones(channels))

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return x_BHWC * self.scale_C


class WindowAttention(nn.Module):
    """Self-attention inside windows, with a learned bias for every relative position.

    Args:
        channels: of the features.
        head: channels per head.
        window: rows and columns of a window.
        shifted: whether windows lie half a window further, so that they span the borders of the others.
    """

    def __init__(self, channels: int, head: int, window: int, shifted: bool):
        super().__init__()
        self.heads, self.window, self.shift = channels // head, window, window // 2 if shifted else 0
        self.qkv = nn.Linear(channels, 3 * channels)
        self.bias_EYX = nn.Parameter(torch.empty(self.heads, 2 * window - 1, 2 * window - 1))
        nn.init.trunc_normal_(self.bias_EYX, std=0.02)
        self.out = nn.Linear(channels, channels)
        places = torch.arange(window)
        apart = places[:, None] - places[None, :] + window - 1  # (from, to)
        rows = apart[:, None, :, None].expand(window, window, window, window).reshape(window**2, -1)
        columns = apart[None, :, None, :].expand(window, window, window, window).reshape(window**2, -1)
        self.register_buffer("offsets", rows * (2 * window - 1) + columns, persistent=False)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        batch, height, width, channels = x_BHWC.shape
        p = self.window
        rows, columns = -(-height // p), -(-width // p)
        padded = _repeat_last(_repeat_last(x_BHWC, 1, rows * p), 2, columns * p)
        if self.shift:
            padded = padded.roll((-self.shift, -self.shift), (1, 2))
        windows = padded.unflatten(1, (rows, p)).unflatten(3, (columns, p)).transpose(2, 3)  # (B, R, K, p, p, C)
        qkv = self.qkv(windows.reshape(batch, rows * columns, p * p, channels))
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)  # each (B, N, E, P, D)
        scores = q @ k.transpose(-1, -2) * (channels // self.heads) ** -0.5
        scores = scores + self.bias_EYX.flatten(1)[:, self.offsets]
        if self.shift:
            scores = scores.masked_fill(self._apart(rows, columns, scores.device), float("-inf"))
        found = (scores.softmax(-1) @ v).transpose(2, 3).flatten(3)
        found = self.out(found).unflatten(2, (p, p)).unflatten(1, (rows, columns)).transpose(2, 3)
        found = found.reshape(batch, rows * p, columns * p, channels)
        if self.shift:
            found = found.roll((self.shift, self.shift), (1, 2))
        return found[:, :height, :width]

    def _apart(self, rows: int, columns: int, device: torch.device) -> Tensor:
        """Boolean (N, 1, P, P): pairs of a window that only the shift brought together, across the picture's border."""

        def wrapped(count: int) -> Tensor:
            return torch.arange(count * self.window, device=device) >= count * self.window - self.shift

        region = 2 * wrapped(rows)[:, None].long() + wrapped(columns)[None, :].long()
        region = region.unflatten(0, (rows, self.window)).unflatten(2, (columns, self.window)).transpose(1, 2)
        region = region.reshape(rows * columns, 1, -1)
        return region[..., :, None] != region[..., None, :]


def _repeat_last(x: Tensor, dimension: int, size: int) -> Tensor:
    """Lengthen a dimension to `size` with copies of its last entry."""
    missing = size - x.shape[dimension]
    if missing == 0:
        return x
    last = x.narrow(dimension, -1, 1)
    return torch.cat([x, last.expand(*x.shape[:dimension], missing, *x.shape[dimension + 1 :])], dimension)


class ConvGate(nn.Module):
    """Linear, 3x3 per channel, GELU, times a gate, linear.

    Args:
        channels: in and out.
        ratio: channels inside per channel, values and gates together.
    """

    def __init__(self, channels: int, ratio: int):
        super().__init__()
        inside = channels * ratio // 2
        self.expand = nn.Linear(channels, 2 * inside)
        self.mix = nn.Conv2d(inside, inside, 3, padding=1, groups=inside)
        self.act = nn.GELU()
        self.reduce = nn.Linear(inside, channels)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        value, gate = self.expand(x_BHWC).chunk(2, -1)
        mixed = self.mix(value.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.reduce(self.act(mixed) * gate)


class SwinBlock(nn.Module):
    """Attention and a gated network, each added to its scaled input."""

    def __init__(self, channels: int, head: int, window: int, ratio: int, shifted: bool):
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = WindowAttention(channels, head, window, shifted)
        self.gate = ConvGate(channels, ratio)
        self.scale_1, self.scale_2 = ChannelScale(channels), ChannelScale(channels)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        x_BHWC = self.scale_1(x_BHWC) + self.attention(self.norm_1(x_BHWC))
        return self.scale_2(x_BHWC) + self.gate(self.norm_2(x_BHWC))


class Swin(nn.Module):
    """A branch of Swin blocks, every second one shifted, and a 3x3 convolution; adds nothing until it has learned.

    Args:
        channels: of the features, (B, C, H, W) here.
        blocks: how many.
        head: channels per head.
        window: rows and columns of a window.
        ratio: see `ConvGate`.
    """

    def __init__(self, channels: int, blocks: int, head: int, window: int, ratio: int):
        super().__init__()
        self.blocks = nn.Sequential(*(SwinBlock(channels, head, window, ratio, i % 2 == 1) for i in range(blocks)))
        self.last = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.last(self.blocks(x_BCHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
