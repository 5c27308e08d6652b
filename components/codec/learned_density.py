"""Frequency tables of a learned factorised prior (`factorized.py`), the same on every machine.

The prior is a small network per channel, of softplus, tanh and sigmoid (Ballé et al. 2018, appendix 6.1): c(x) is the
logit of the chance to be below x, and an integer k around the median m has the chance
sigmoid(c(m + k + 1/2)) - sigmoid(c(m + k - 1/2)).

Encoder and decoder need the same tables. Exponentials of the machine's library may differ in their last bits, and sums
of matrix products in their order. So everything here is made of float64 additions, multiplications, divisions and
roundings, one array operation after another: IEEE 754 says for each what comes out, to the last bit.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from components.codec.factorized import FactorizedDensity
from components.codec.tables import TOTAL
from components.errors import CotamError

Array = NDArray[np.float64]
Layers = list[tuple[Array, Array, Array | None]]
"""Matrix (C, out, in), bias (C, out) and, but for the last layer, factor (C, out)."""

SMALLEST_BOUND = 8  # of a row's largest symbol: no symbol is cheaper than the narrowest Gaussian's
LARGEST_BOUND = 2047
MARGIN = 8  # symbols beyond those that have a chance
FORGOTTEN = 2.0**-18  # chance on either side of them

_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 0.693147180369123816490, 1.90821492927058770002e-10  # the first has zeros at its end
_TERMS = 14


def learned_rows(bottleneck: FactorizedDensity, centers_C: NDArray[np.int64], unit: int) -> list[NDArray[np.int64]]:
    """Frequencies of each channel's symbols -bound .. bound, at least 1 each, `TOTAL` in all.

    Args:
        bottleneck: the learned density; float32 parameters.
        centers_C: what symbol 0 stands for in each channel, in 1/unit.
        unit: a power of two.

    Raises:
        CotamError: a weight is not finite.
    """
    layers = _layers(bottleneck)
    if not all(np.isfinite(part).all() for layer in layers for part in layer if part is not None):
        raise CotamError("The codec's weights are damaged: one is infinite; copy them again.")
    centers_C = centers_C.astype(np.float64) / unit
    bounds_C = _bounds(layers, centers_C)
    channels_P = np.repeat(np.arange(len(bounds_C)), 2 * bounds_C)
    edges = np.concatenate([np.arange(-bound, bound) + 0.5 for bound in bounds_C])  # between the symbols
    below_P, above_P = _both_sides(_logits(layers, channels_P, centers_C[channels_P] + edges))
    ends = np.cumsum(2 * bounds_C)[:-1]
    return [_row(*sides) for sides in zip(np.split(below_P, ends), np.split(above_P, ends), strict=True)]


def _bounds(layers: Layers, centers_C: Array) -> NDArray[np.int64]:
    """The largest symbol of each channel: the first beyond which there is hardly a chance, and a few more."""
    channels_C = np.arange(len(centers_C))
    low_C, high_C = np.zeros(len(centers_C), np.int64), np.full(len(centers_C), LARGEST_BOUND - MARGIN)
    while (low_C < high_C).any():
        middle_C = (low_C + high_C) // 2
        below_C, _ = _both_sides(_logits(layers, channels_C, centers_C - middle_C - 0.5))
        _, above_C = _both_sides(_logits(layers, channels_C, centers_C + middle_C + 0.5))
        enough_C = np.maximum(below_C, above_C) < FORGOTTEN
        low_C = np.where(enough_C, low_C, np.minimum(middle_C + 1, high_C))
        high_C = np.where(enough_C, middle_C, high_C)
    return np.maximum(low_C + MARGIN, SMALLEST_BOUND)


def _row(below_E: Array, above_E: Array) -> NDArray[np.int64]:
    """Frequencies, given the chances on both sides of every edge; what lies beyond the ends counts to them."""
    # Differences of whichever side is small: there a float keeps its digits.
    inner = np.where(below_E[1:] < above_E[1:], below_E[1:] - below_E[:-1], above_E[:-1] - above_E[1:])
    chances = np.concatenate([below_E[:1], inner, above_E[-1:]])
    frequencies = np.floor(np.maximum(chances, 0) * (TOTAL - len(chances))).astype(np.int64) + 1
    frequencies[frequencies.argmax()] += TOTAL - frequencies.sum()
    return frequencies


def _layers(bottleneck: FactorizedDensity) -> Layers:
    """As they are applied."""

    def read(parameters: Sequence) -> list[Array]:
        return [parameter.detach().cpu().double().numpy() for parameter in parameters]

    matrices = [softplus(matrix) for matrix in read(bottleneck.matrices)]
    biases = [bias[..., 0] for bias in read(bottleneck.biases)]
    factors: list[Array | None] = [tanh(factor[..., 0]) for factor in read(bottleneck.factors)]
    return list(zip(matrices, biases, [*factors, None], strict=True))


def _logits(layers: Layers, channels_P: NDArray[np.int64], x_P: Array) -> Array:
    """c(x) of points in the channels given."""
    features = [x_P]
    for matrix_COI, bias_CO, factor_CO in layers:
        outputs = []
        for o in range(matrix_COI.shape[1]):
            total = bias_CO[channels_P, o]
            for i, feature in enumerate(features):
                total = total + matrix_COI[channels_P, o, i] * feature
            if factor_CO is not None:
                total = total + factor_CO[channels_P, o] * tanh(total)
            outputs.append(total)
        features = outputs
    return features[0]


def _both_sides(logits: Array) -> tuple[Array, Array]:
    """sigmoid(x) and sigmoid(-x), both with all their digits."""
    small = exp(-np.abs(logits))
    less, more = small / (1 + small), 1 / (1 + small)
    return np.where(logits < 0, less, more), np.where(logits < 0, more, less)


def exp(x: Array) -> Array:
    """Exponential, within a few units of the last place; x beyond -700 .. 700 counts as that."""
    x = np.clip(x, -700, 700)
    halvings = np.rint(x * _LOG2_E)
    rest = (x - halvings * _LN2_HIGH) - halvings * _LN2_LOW
    result = np.ones_like(rest)
    for n in range(_TERMS, 0, -1):  # Taylor's series, |rest| < 0.35
        result = 1 + rest * result / n
    return np.ldexp(result, halvings.astype(np.int32))


def tanh(x: Array) -> Array:
    """Hyperbolic tangent, within 1e-15."""
    small = exp(-2 * np.abs(x))
    return np.copysign((1 - small) / (1 + small), x)


def softplus(x: Array) -> Array:
    """log(1 + exp(x)), within 1e-15 of itself or of 1."""
    target = 1 + exp(-np.abs(x))
    log = 0.7 * (target - 1)
    for _ in range(6):  # Halley's method for exp(log) = target
        reached = exp(log)
        log = log + 2 * (target - reached) / (target + reached)
    return np.maximum(x, 0) + log
