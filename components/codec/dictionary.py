"""DCAE's dictionary: what is typical of images in general, looked up for every place (Lu et al. 2025, section 3.3).

What is known of a place asks, the entries of a learned dictionary answer: cross-attention from features, made at
several scales first, to the entries. All slices of the latent share the dictionary, not the networks around it.
"""

import torch
from torch import Tensor, nn

from components.codec.swin import ChannelScale, ConvGate


class SpatialGate(nn.Module):
    """Weight of every place, from the mean and the largest of its channels."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        summary = torch.cat([x_BCHW.mean(1, keepdim=True), x_BCHW.amax(1, keepdim=True)], 1)
        return torch.sigmoid(self.conv(summary))


class MultiScale(nn.Module):
    """Three small convolutional networks in a row, all their outputs mixed, places weighted; (B, C, H, W)."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 1)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.GELU(),
                nn.Conv2d(channels, channels, 1),
                nn.GELU(),
                nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
                nn.GELU(),
                nn.Conv2d(channels, channels, 1),
            )
            for _ in range(3)
        )
        self.mix = nn.Conv2d(4 * channels, channels, 1)
        self.gate = SpatialGate()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        scales = [self.first(x_BCHW)]
        for layer in self.layers:
            scales.append(layer(scales[-1]))
        mixed = self.mix(torch.cat(scales, 1))
        return mixed * self.gate(mixed)


class DictionaryAttention(nn.Module):
    """Reads the dictionary for one slice.

    Args:
        channels_in, channels_out: of what is known, and of what is told.
        heads: each sees its own part of the entries.
        head: channels per head; an entry has heads * head.
        ratio: see `ConvGate`.
    """

    def __init__(self, channels_in: int, channels_out: int, heads: int, head: int, ratio: int):
        super().__init__()
        d = heads * head
        self.heads = heads
        self.enter = nn.Linear(channels_in, d)
        self.norm_scales, self.scales, self.skip_1 = nn.LayerNorm(d), MultiScale(d), ChannelScale(d)
        self.norm_query, self.query = nn.LayerNorm(d), nn.Linear(d, d)
        self.norm_dictionary, self.key = nn.LayerNorm(d), nn.Linear(d, d)
        self.sharpness_E11 = nn.Parameter(torch.ones(heads, 1, 1))
        self.out, self.skip_2 = nn.Linear(d, d), ChannelScale(d)
        self.norm_gate, self.gate, self.skip_3 = nn.LayerNorm(d), ConvGate(d, ratio), ChannelScale(d)
        self.leave = nn.Linear(d, channels_out)

    def forward(self, known_BCHW: Tensor, dictionary_ND: Tensor) -> Tensor:
        """What the dictionary tells of every place, (B, channels_out, H, W)."""
        x_BHWD = self.enter(known_BCHW.permute(0, 2, 3, 1))
        aggregated = self.scales(self.norm_scales(x_BHWD).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x_BHWD = aggregated + self.skip_1(x_BHWD)

        entries_ND = self.norm_dictionary(dictionary_ND)
        value_END = entries_ND.unflatten(-1, (self.heads, -1)).transpose(0, 1)
        key_END = self.key(entries_ND).unflatten(-1, (self.heads, -1)).transpose(0, 1)
        query = self.query(self.norm_query(x_BHWD)).flatten(1, 2)
        query_BEPD = query.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        weights = (query_BEPD @ key_END.transpose(-1, -2) * self.sharpness_E11).softmax(-1)
        told_BHWD = (weights @ value_END).transpose(1, 2).flatten(2).unflatten(1, x_BHWD.shape[1:3])

        x_BHWD = self.out(told_BHWD) + self.skip_2(x_BHWD)
        x_BHWD = self.gate(self.norm_gate(x_BHWD)) + self.skip_3(x_BHWD)
        return self.leave(x_BHWD).permute(0, 3, 1, 2)
