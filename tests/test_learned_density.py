"""Tables of learned densities: what CompressAI's density says, and the same numbers everywhere."""

import zlib

import numpy as np
import pytest
import torch
from compressai.entropy_models import EntropyBottleneck

from components.codec import learned_density
from components.codec.learned_density import LARGEST_BOUND, SMALLEST_BOUND, learned_rows
from components.codec.tables import TOTAL
from components.errors import CotamError


def density(seed, channels=6):
    """A random one whose weights no library's random numbers decide."""
    model = EntropyBottleneck(channels)
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for parameter in (*model.matrices, *model.biases, *model.factors):
            parameter.copy_(torch.from_numpy(rng.integers(-50, 51, parameter.shape) / 64))
    return model


def test_functions_are_accurate():
    x = np.linspace(-40, 40, 4001)
    assert np.allclose(learned_density.exp(x), np.exp(x), rtol=1e-14, atol=0)
    assert np.allclose(learned_density.tanh(x), np.tanh(x), rtol=0, atol=4e-15)
    assert np.allclose(learned_density.softplus(x), np.logaddexp(0, x), rtol=1e-14, atol=1e-14)
    assert np.isfinite(learned_density.exp(np.array([-1e9, 1e9]))).all()


def test_rows_cost_what_the_density_promises():
    model = density(1)
    centers_C = np.array([0, 5, -70, 640, 3, -1])
    rows = learned_rows(model, centers_C, 64)
    model.double()
    for c, row in enumerate(rows):
        bound = len(row) // 2
        assert len(row) == 2 * bound + 1
        assert SMALLEST_BOUND <= bound <= LARGEST_BOUND
        assert row.min() >= 1
        assert row.sum() == TOTAL
        points = torch.arange(-bound, bound + 1).double() + centers_C[c] / 64
        with torch.no_grad():
            logits = [model._logits_cumulative(points.expand(6, 1, -1) + h, True) for h in (-0.5, 0.5)]
        chances = (torch.sigmoid(logits[1]) - torch.sigmoid(logits[0]))[c, 0].clamp(min=1e-12).numpy()
        assert np.abs(row / TOTAL - chances).max() < len(row) / TOTAL + 2e-5
        entropy = -(chances * np.log2(chances)).sum()
        assert -(chances * np.log2(row / TOTAL)).sum() < entropy * 1.001 + 0.001


def test_frequencies_are_these_on_every_machine():
    rows = learned_rows(density(2), np.zeros(6, np.int64), 64)
    assert zlib.crc32(np.concatenate(rows).astype("<u4").tobytes()) == 0xA18D3510


def test_narrow_wide_and_broken_densities():
    model = EntropyBottleneck(2)
    with torch.no_grad():
        model.matrices[0][0] = 50  # a step
        model.matrices[0][1] = -12  # nearly flat
    narrow, wide = learned_rows(model, np.zeros(2, np.int64), 64)
    assert len(narrow) < len(wide) == 2 * LARGEST_BOUND + 1
    with torch.no_grad():
        model.biases[2][1] = torch.inf
    with pytest.raises(CotamError, match="damaged"):
        learned_rows(model, np.zeros(2, np.int64), 64)
