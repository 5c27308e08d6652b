"""A learned density for every channel of z, for training; its frequency tables are made in `learned_density.py`.

Ballé et al. 2018, "Variational image compression with a scale hyperprior", appendix 6.1. The tensors have the names of
CompressAI's `EntropyBottleneck`, so that published weights fit.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.codec.likelihood import SMALLEST_LIKELIHOOD, as_coded, at_least

WIDTHS = (1, 3, 3, 3, 3, 1)  # of the small networks
START = 10.0  # half of the range in which an untrained density expects z


class FactorizedDensity(nn.Module):
    """For each of C channels a small network c, rising in x: the logit of the chance to be below x.

    Attributes:
        matrices, biases, factors: of the layers; (C, out, in), (C, out, 1) and, but for the last layer, (C, out, 1).
        quantiles: (C, 1, 3); the middle one is the channel's median, the others are kept for published weights.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.matrices, self.biases, self.factors = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        gain = START ** (1 / (len(WIDTHS) - 1))  # every layer's share in squeezing that range to one
        for inputs, outputs in pairwise(WIDTHS):
            before_softplus = math.log(math.expm1(1 / gain / outputs))
            self.matrices.append(nn.Parameter(torch.full((channels, outputs, inputs), before_softplus)))
            self.biases.append(nn.Parameter(nn.init.uniform_(torch.empty(channels, outputs, 1), -0.5, 0.5)))
            if len(self.matrices) < len(WIDTHS) - 1:
                self.factors.append(nn.Parameter(torch.zeros(channels, outputs, 1)))
        self.quantiles = nn.Parameter(torch.tensor([-START, 0.0, START]).repeat(channels, 1, 1))

    @property
    def medians(self) -> Tensor:
        """What z is rounded around, (C, 1, 1)."""
        return self.quantiles[:, :, 1:2]

    def forward(self, z_BCHW: Tensor) -> Tensor:
        """Chances (B, C, H, W) of the bins that z falls into; in training, of z with noise."""
        z_CBHW = z_BCHW.transpose(0, 1).contiguous()
        z_C1N = as_coded(z_CBHW.flatten(1)[:, None], self.training, self.medians)
        lower_C1N, upper_C1N = self._logits(z_C1N - 0.5), self._logits(z_C1N + 0.5)
        chances_C1N = at_least(torch.sigmoid(upper_C1N) - torch.sigmoid(lower_C1N), SMALLEST_LIKELIHOOD)
        return chances_C1N.reshape(z_CBHW.shape).transpose(0, 1).contiguous()

    def _logits(self, x_C1N: Tensor) -> Tensor:
        features = x_C1N
        for layer, (matrix, bias) in enumerate(zip(self.matrices, self.biases, strict=True)):
            features = F.softplus(matrix) @ features + bias
            if layer < len(self.factors):
                features = features + torch.tanh(self.factors[layer]) * torch.tanh(features)
        return features
