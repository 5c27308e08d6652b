"""A published ELIC's entropy model in integers: `elic2022_context.py` as encoder and decoder run it.

The same pieces as `exact_elic.py`, with three differences: scales come as such, not as logarithms, and find their row
among thresholds; z has a learned density, so rows of its own, numbered from -Cz to -1; the inputs of an aggregation are
put in another order, as anchors are not there for the first half of a group.
"""

import decimal
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from components.codec.config import HYPER_STRIDE
from components.codec.elic2022 import Elic2022
from components.codec.exact import BITS, Doubling, Taps, activation, exp_fixed, fixed, product, quantize, shift
from components.codec.exact_elic import (
    FRACTION_BITS,
    INVERSE_BITS,
    LARGEST_MEAN,
    PREDICTION_BITS,
    ROWS,
    UNIT_BITS,
)
from components.codec.learned_density import learned_rows
from components.codec.products import Product


def _thresholds() -> list[int]:
    """Where the nearest row of the table of scales changes, in 2**-14: sqrt(s_k s_(k+1)), to the last digit."""
    with decimal.localcontext(decimal.Context(prec=40)):
        first, last = decimal.Decimal("0.11"), decimal.Decimal(256)
        step = (last / first).ln() / (ROWS - 1)
        edges = [first * (step * (decimal.Decimal(k) + decimal.Decimal("0.5"))).exp() for k in range(ROWS - 1)]
        return [int((edge * (1 << PREDICTION_BITS)).to_integral_value(decimal.ROUND_CEILING)) for edge in edges]


class ExactElic2022:
    """The decoder's half of a published ELIC's entropy model.

    Args:
        model: the networks; their weights are read once.
        device: where to compute. The integers do not depend on it.

    Raises:
        CotamError: weights that cannot be computed with exactly.
    """

    fraction_bits = FRACTION_BITS

    def __init__(self, model: Elic2022, device: torch.device | str = "cpu"):
        entropy, self.config = model.entropy, model.config
        self.device = torch.device(device)
        first, _, second, _, last = entropy.h_s
        self.hyper_synthesis = (Doubling(first, relu=True), Doubling(second, relu=True), Taps.of(_as_convolution(last)))
        self.channel_context = [
            (Taps.of(first, relu=True), Taps.of(second, relu=True), Taps.of(last))
            for first, _, second, _, last in entropy.channel_context
        ]
        self.spatial_context = [Taps.of(layer, mask=lambda y, x: (y + x) % 2 == 1) for layer in entropy.spatial_context]
        self.aggregation = [
            (_anchors_last(first, 2 * size), product(second, relu=True), product(last, out_bits=PREDICTION_BITS))
            for (first, _, second, _, last), size in zip(entropy.aggregation, self.config.groups, strict=True)
        ]
        layers = (*self.hyper_synthesis, *self.spatial_context, *sum(self.channel_context + self.aggregation, ()))
        for layer in layers:
            layer.to(self.device)
        self.gain_QC = exp_fixed(model.latent_gain.log_QC, UNIT_BITS).to(self.device)
        self.inverse_QC = exp_fixed(-model.latent_gain.log_QC, INVERSE_BITS).to(self.device)
        medians_C = fixed(entropy.bottleneck.quantiles[:, 0, 1], FRACTION_BITS).clamp(-LARGEST_MEAN, LARGEST_MEAN)
        self.own_rows: Sequence[NDArray[np.int64]] = learned_rows(
            entropy.bottleneck, medians_C.numpy(), 1 << FRACTION_BITS
        )
        self.median_C = medians_C.to(self.device)
        self.thresholds = torch.tensor(_thresholds(), device=self.device)

    def hyper_prior(self, quality_map_BHW: Tensor) -> tuple[Tensor, Tensor]:
        """Medians in 1/64 and rows of z, int64 (B, h, w, Cz): the same everywhere."""
        places = quality_map_BHW[:, ::HYPER_STRIDE, ::HYPER_STRIDE]
        channels = len(self.median_C)
        rows_C = torch.arange(-channels, 0, device=self.device)
        return self.median_C.expand(*places.shape, channels), rows_C.expand(*places.shape, channels)

    def side(self, z_BHWC: Tensor, quality_map_BHW: Tensor) -> Tensor:
        """Side information (B, h, w, 2 N) for the latent, from the decoded z in 1/64."""
        height, width = quality_map_BHW.shape[-2:]
        features = activation(z_BHWC << (BITS - FRACTION_BITS))
        for layer in self.hyper_synthesis:
            features = layer(features)
        return features[:, :height, :width]

    def units(self, y: Tensor, qualities: Tensor, channels: slice) -> Tensor:
        """Decoded latents in 1/64 (..., channels), before their gain, given the qualities (...) of their places."""
        return activation(shift(y * self.inverse_QC[:, channels][qualities], FRACTION_BITS + INVERSE_BITS - BITS))

    def before(self, k: int, side_BHWS: Tensor, units_BHWC: Tensor) -> Tensor:
        """What is known of group k before any of it is decoded; `units` of the groups before."""
        if k == 0:
            return side_BHWS
        features = units_BHWC
        for layer in self.channel_context[k - 1]:
            features = layer(features)
        return torch.cat([features, side_BHWS], -1)

    def parameters_of(
        self, k: int, before_BPF: Tensor, anchors_BHWG: Tensor | None, qualities_BP: Tensor, channels: slice
    ) -> tuple[Tensor, Tensor]:
        """Means in 1/64 and rows of group k; arguments as in `ExactElic.parameters_of`."""
        known = before_BPF
        if anchors_BHWG is not None:
            known = torch.cat([before_BPF, self.spatial_context[k].at(anchors_BHWG, parity=1)], -1)
        for layer in self.aggregation[k]:
            known = layer(known)
        scale, mean = known.long().chunk(2, -1)
        gain = self.gain_QC[:, channels][qualities_BP]
        means = shift(mean * gain, PREDICTION_BITS + UNIT_BITS - FRACTION_BITS).clamp(-LARGEST_MEAN, LARGEST_MEAN)
        return means, torch.bucketize(shift(scale * gain, UNIT_BITS), self.thresholds, right=True)


def _as_convolution(layer: nn.ConvTranspose2d) -> nn.Conv2d:
    """A transposed convolution of stride 1 is a convolution with the kernel turned by half."""
    padding = layer.kernel_size[0] - 1 - layer.padding[0]
    convolution = nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size, padding=padding)
    convolution.weight.data = layer.weight.detach().transpose(0, 1).flip(2, 3)
    convolution.bias.data = layer.bias.detach()
    return convolution


def _anchors_last(layer: nn.Conv2d, anchors: int) -> Product:
    """A layer of 1 x 1 whose first inputs, those of the anchors, come last."""
    weight_OK = layer.weight.detach().flatten(1)
    return Product(quantize(torch.cat([weight_OK[:, anchors:], weight_OK[:, :anchors]], 1), layer.bias), relu=True)
