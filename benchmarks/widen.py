"""A small trained ELIC as a full-width one that computes the same function.

A network's time does not depend on its weights, but its rates, its PSNR and what eight-bit integers do to it, do. No
full-width codec is shipped; so benchmarks widen the trained micro codec:

- Inside the networks every channel becomes several copies of itself, and what reads them reads each copy with its share
  of the weight. Nothing is idle: every multiplication counts.
- Latent and hyper latent cannot have copies, which would cost their bits again. Their additional channels are silent:
  always zero, and so certain to be zero that they cost next to nothing.
- Larger kernels hold the smaller ones in their middle; a block too many adds nothing.

`benchmarks/compressai_elic.py` gives CompressAI's own layers the same weights.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from components.codec.config import FULL_ELIC, CodecConfig
from components.codec.elic import Attention, Bottleneck, Elic, Refine
from components.codec.gains import Gain
from components.errors import CotamError

SILENT_LOG_SPREAD = -7.0  # of channels that are always zero: far below the smallest scale at every quality


@dataclass(frozen=True)
class Channels:
    """Which narrow channel each wide channel copies.

    Attributes:
        source_C: int64 (wide,); -1 for a silent one.
        narrow: how many narrow channels there are.
    """

    source_C: Tensor
    narrow: int

    @property
    def share_C(self) -> Tensor:
        """What part of a narrow channel's weight falls to each wide one, float64; 0 for silent ones."""
        counts = torch.bincount(self.source_C.clamp(min=0)[self.source_C >= 0], minlength=self.narrow)
        return torch.where(self.source_C < 0, 0, 1 / counts[self.source_C].clamp(min=1).double())

    def take(self, values: Tensor, dim: int, silent: float = 0.0) -> Tensor:
        """Values of narrow channels along `dim` -> of wide ones."""
        wide = values.index_select(dim, self.source_C.clamp(min=0))
        shape = [1] * values.dim()
        shape[dim] = -1
        return torch.where((self.source_C < 0).reshape(shape), torch.as_tensor(silent, dtype=values.dtype), wide)


def copies(narrow: int, wide: int) -> Channels:
    """Wide channels copy narrow ones in turns."""
    return Channels(torch.arange(wide) % narrow, narrow)


def padded(narrow: int, wide: int) -> Channels:
    """The first wide channels are the narrow ones, the others silent."""
    places = torch.arange(wide)
    return Channels(torch.where(places < narrow, places, -1), narrow)


def joined(parts: Iterable[Channels]) -> Channels:
    """Channels of concatenated features."""
    sources, start = [], 0
    for part in parts:
        sources.append(torch.where(part.source_C < 0, -1, part.source_C + start))
        start += part.narrow
    return Channels(torch.cat(sources), start)


@torch.no_grad()
def widen(model: Elic, config: CodecConfig = FULL_ELIC) -> Elic:
    """The same function in a larger network.

    Args:
        model: a trained codec's networks.
        config: sizes of the result, none smaller than the model's; its qualities become the model's.

    Raises:
        CotamError: a size is smaller than the model's.
    """
    old = model.config
    config = config.model_copy(update={"lambdas": old.lambdas})
    _check_sizes(old, config)
    # What is not set below must add nothing: a new model's last layers are zero where it matters.
    wide = Elic(config).eval()
    groups = [padded(a, b) for a, b in zip(old.groups, config.groups, strict=True)]
    latent = joined(groups)
    stages = [copies(a, b) for a, b in zip(old.widths, config.widths, strict=True)]
    chain = [padded(3, 3), *stages, latent]
    for k, (into, out) in enumerate(pairwise(chain)):
        _layer(model.down[k], wide.down[k], into, out)
        _layer(model.up[-1 - k], wide.up[-1 - k], out, into)
    for k, stage in enumerate(stages):
        _refine(model.analysis[k], wide.analysis[k], stage)
        _refine(model.synthesis[-1 - k], wide.synthesis[-1 - k], stage)
        _gain(model.analysis_gain[k], wide.analysis_gain[k], stage)
        _gain(model.synthesis_inverse[-1 - k], wide.synthesis_inverse[-1 - k], stage)
    _gain(model.latent_gain, wide.latent_gain, latent)
    _gain(model.latent_inverse, wide.latent_inverse, latent)
    _entropy(model, wide, groups, latent)
    return wide


def _entropy(model: Elic, wide: Elic, groups: Sequence[Channels], latent: Channels) -> None:
    old, new, a, b = model.config, wide.config, model.entropy, wide.entropy
    hyper = padded(old.hyper_channels, new.hyper_channels)
    inner = copies(old.hyper_channels, new.hyper_channels)
    side = copies(old.side_channels, new.side_channels)
    context = copies(old.context_channels, new.context_channels)
    hidden = copies(old.hidden_channels, new.hidden_channels)
    _sequence(a.hyper_analysis, b.hyper_analysis, [latent, inner, inner, hyper])
    _sequence(a.hyper_synthesis, b.hyper_synthesis, [hyper, inner, inner, side])
    _gain(a.hyper_gain, b.hyper_gain, hyper)
    b.hyper_mean_QC.copy_(hyper.take(a.hyper_mean_QC, 1))
    b.hyper_log_scale_QC.copy_(hyper.take(a.hyper_log_scale_QC, 1, SILENT_LOG_SPREAD))
    b.quality_side_QS.copy_(side.take(a.quality_side_QS, 1))
    b.log_spread_C.copy_(latent.take(a.log_spread_C, 0, SILENT_LOG_SPREAD))
    for k, group in enumerate(groups):
        known = [side]
        if k > 0:
            _sequence(a.channel_context[k - 1], b.channel_context[k - 1], [joined(groups[:k]), context])
            known.append(context)
        _layer(a.spatial_context[k], b.spatial_context[k], group, context)
        _sequence(a.aggregation[k], b.aggregation[k], [joined([*known, context]), hidden, joined([group, group])])


def _layer(a: nn.Conv2d | nn.ConvTranspose2d, b: nn.Module, into: Channels, out: Channels) -> None:
    """Set convolution b to do what a does."""
    in_dim, out_dim = (0, 1) if isinstance(a, nn.ConvTranspose2d) else (1, 0)
    shape = [1] * 4
    shape[in_dim] = -1
    weight = out.take(into.take(a.weight.double(), in_dim), out_dim) * into.share_C.reshape(shape)
    corner = (b.kernel_size[0] - 1) // 2 - (a.kernel_size[0] - 1) // 2
    inside = slice(corner, corner + a.kernel_size[0])
    b.weight.zero_()
    b.weight[..., inside, inside] = weight.float()
    b.bias.copy_(out.take(a.bias, 0))


def _sequence(a: nn.Sequential, b: nn.Sequential, channels: Sequence[Channels]) -> None:
    """The convolutions of two sequences, between the channels given."""
    layers = [[layer for layer in s.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)] for s in (a, b)]
    for old, new, path in zip(*layers, pairwise(channels), strict=True):
        _layer(old, new, *path)


def _refine(a: Refine, b: Refine, channels: Channels) -> None:
    blocks = [branch for branch in a.branches if isinstance(branch, Bottleneck)]
    wide_blocks = [branch for branch in b.branches if isinstance(branch, Bottleneck)]
    half = copies(channels.narrow // 2, len(channels.source_C) // 2)
    path = [channels, half, half, channels]
    for k, block in enumerate(wide_blocks):
        _sequence(blocks[min(k, len(blocks) - 1)], block, path)
        if k >= len(blocks):  # works like the last, and keeps it for itself
            block[-1].weight.zero_()
            block[-1].bias.zero_()
    if isinstance(a.branches[-1], Attention):
        unit = [channels, half, half]
        _sequence(a.branches[-1].conv_a, b.branches[-1].conv_a, [*unit * 3, channels])
        _sequence(a.branches[-1].conv_b, b.branches[-1].conv_b, [*unit * 3, channels, channels])


def _gain(a: Gain, b: Gain, channels: Channels) -> None:
    b.log_QC.data = channels.take(a.log_QC, 1)


def _check_sizes(old: CodecConfig, new: CodecConfig) -> None:
    def sizes(config: CodecConfig) -> list[int]:
        single = (config.blocks, config.kernel, config.hyper_channels, config.side_channels, config.context_channels)
        return [*config.widths, *config.groups, *single, config.context_kernel, config.hidden_channels]

    if len(old.groups) != len(new.groups) or any(a > b for a, b in zip(sizes(old), sizes(new), strict=True)):
        raise CotamError("A codec can only be widened to sizes as large as its own; choose larger ones.")
