"""Integer layers: they are the float layers up to their grid, and the same integers however they are summed."""

import decimal

import numpy as np
import pytest
import torch
from compressai.layers import CheckerboardMaskedConv2d
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from components.codec import exact
from components.codec.exact import BITS, Doubling, Taps, exp_fixed, fixed, product, quantize
from components.codec.exact_elic import _FIRST_LOG, _ROWS_PER_E_FOLD
from components.codec.products import DIGIT, LIMIT, TWO_DIGITS, Product
from components.errors import CotamError

UNIT = 1 << BITS


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def halved(layer):
    """The layer with weights as a file has them."""
    return layer.half().float().requires_grad_(False)


def activations(*shape, spread=2000):
    return (spread * torch.randn(shape)).round().int()


def channels_last(y_BCHW):
    return y_BCHW.permute(0, 2, 3, 1)


def in_float64(layer, a_BHWC):
    """What a layer gives without a grid for its weights."""
    return channels_last(layer.double()(a_BHWC.permute(0, 3, 1, 2).double() / UNIT))


def close(found, expected, tolerance=0.02):
    assert found.dtype == torch.int32
    assert found.shape == expected.shape
    assert (found / UNIT - expected).abs().max() < tolerance * expected.abs().max()


def test_layers_are_the_float_layers_up_to_their_grid():
    a = activations(2, 5, 7, 6)
    with torch.no_grad():
        for layer in (nn.Conv2d(6, 4, 3, padding=1), nn.Conv2d(6, 4, 5, padding=2), nn.Conv2d(6, 4, 1)):
            halved(layer)
            close(Taps.of(layer)(a), in_float64(layer, a))
            close(Taps.of(layer, relu=True)(a), in_float64(layer, a).relu())
        for kernel in (4, 5, 2, 3):
            padding = {"padding": (kernel - 1) // 2, "output_padding": kernel % 2}
            layer = halved(nn.ConvTranspose2d(6, 4, kernel, stride=2, **padding))
            close(Doubling(layer)(a), in_float64(layer, a))
        layer = halved(nn.Linear(6, 4))
        close(product(layer)(a), layer.double()(a.double() / UNIT))


def test_a_checkerboard_is_computed_only_where_it_is_read():
    layer = halved(CheckerboardMaskedConv2d(6, 4, 5, padding=2))
    exactly = Taps.of(layer, mask=lambda y, x: (y + x) % 2 == 1)
    a = activations(2, 5, 7, 6)
    rows, columns = torch.meshgrid(torch.arange(5), torch.arange(7), indexing="ij")
    for parity in (0, 1):
        chosen = (rows + columns) % 2 == parity
        found = exactly.at(a, parity)
        assert torch.equal(found, exactly(a)[:, chosen])
        with torch.no_grad():
            close(found, in_float64(layer, a)[:, chosen])


def test_both_ways_of_summing_give_the_same_integers():
    """On processors that multiply bytes; elsewhere both are float64."""
    layers = [
        Taps.of(halved(nn.Conv2d(40, 24, 3, padding=1))),
        Doubling(halved(nn.ConvTranspose2d(40, 24, 4, stride=2, padding=1))),
        product(halved(nn.Linear(40, 24)), out_bits=14),
        product(halved(nn.Conv2d(96, 24, 1))),  # the last inputs are missing
    ]
    layers += [
        Taps.of(halved(nn.Conv2d(40, 24, 3, padding=1)), largest=TWO_DIGITS),
        Doubling(halved(nn.ConvTranspose2d(40, 24, 4, stride=2, padding=1)), largest=TWO_DIGITS),
        product(halved(nn.Linear(40, 24)), out_bits=14, largest=TWO_DIGITS),
        product(halved(nn.Conv2d(96, 24, 1)), relu=True, largest=TWO_DIGITS),
    ]
    inputs = [activations(3, 6, 5, 40, spread=spread).clamp(-LIMIT, LIMIT) for spread in (20, 2000, 200_000, 4e6)]
    inputs += [torch.full((1, 4, 4, 40), value, dtype=torch.int32) for value in (-LIMIT, LIMIT, -128, 127, 128, -32768)]
    found = [layer(a) for layer in layers for a in inputs]
    with torch.backends.mkldnn.flags(enabled=False):  # int8 products are oneDNN's
        again = [layer(a) for layer in layers for a in inputs]
    assert all(map(torch.equal, found, again))


@pytest.mark.parametrize("largest", [DIGIT, TWO_DIGITS])
@pytest.mark.parametrize("spread", [100, 20_000, LIMIT])
@pytest.mark.parametrize("size", [0.003, 3, 300])
def test_sums_are_those_of_python_integers(largest, spread, size):
    rng = np.random.default_rng(0)
    weights = torch.from_numpy(rng.normal(0, size, (5, 64)).astype(np.float16)).double()
    rows = quantize(weights, torch.arange(5) - 2.25, largest=largest)
    a = torch.from_numpy(rng.integers(-spread, spread + 1, (7, 64))).int()
    expected = [
        [
            max(-LIMIT, min(LIMIT, (sum(map(int.__mul__, one, w)) + b + (1 << s >> 1)) >> s))
            for w, b, s in zip(rows.weight_OK.tolist(), rows.bias_O.tolist(), rows.shift_O.tolist(), strict=True)
        ]
        for one in a.tolist()
    ]
    assert Product(rows)(a).tolist() == expected


@given(
    st.lists(st.floats(-60000, 60000, width=16), min_size=1, max_size=8),
    st.sampled_from([10, 14]),
    st.sampled_from([127, 32639]),
)
def test_an_output_channel_uses_all_bits_if_it_can(weights, out_bits, limit):
    rows = quantize(torch.tensor([weights], dtype=torch.float64), None, out_bits, limit)
    e = int(rows.shift_O) - BITS + out_bits
    largest = max(map(abs, weights))
    assert int(rows.shift_O) >= 0
    assert e <= exact.LARGEST_EXPONENT
    assert rows.weight_OK.tolist() == [[int(np.floor(np.ldexp(w, e) + 0.5)) for w in weights]]
    if largest == 0:
        assert e == 7
    elif out_bits - BITS < e < exact.LARGEST_EXPONENT:
        assert largest * 2.0**e <= limit < largest * 2.0 ** (e + 1)
    elif e == exact.LARGEST_EXPONENT:
        assert largest * 2.0**e <= limit
    else:  # as fine as a shift to the right allows, in more than eight bits if need be
        assert largest * 2.0 ** (e + 1) > limit


def test_weights_that_no_sum_holds_are_refused():
    with pytest.raises(CotamError, match="too large to be summed exactly"):
        quantize(torch.full((1, 20_000), 60000.0), None)
    for bad in (float("nan"), float("inf")):
        with pytest.raises(CotamError, match="damaged"):
            quantize(torch.tensor([[1.0, bad]]), None)
        with pytest.raises(CotamError, match="damaged"):
            fixed(torch.tensor([bad]), 3)
        with pytest.raises(CotamError, match="damaged"):
            exp_fixed(torch.tensor([bad]), 3)
    with pytest.raises(CotamError, match="damaged"):
        quantize(torch.ones(1, 2), torch.tensor([1e300], dtype=torch.float64))


def test_exponentials_are_right_to_the_last_unit():
    logs = torch.tensor([0.0, 0.5, -0.5, 3.25, -9.0, -60000.0, 13.0, 60000.0])
    found = exp_fixed(logs, 16).tolist()
    assert found == [65536, 108051, 39750, 1690196, 8, 0, (1 << 29) - 1, (1 << 29) - 1]
    more = torch.linspace(-8, 8, 400, dtype=torch.float64).half()
    assert np.allclose(exp_fixed(more, 24).numpy() / 2**24, np.minimum(np.exp(more.double().numpy()), 32), atol=2**-24)


def test_the_constants_of_the_rows_are_what_they_say():
    with decimal.localcontext(decimal.Context(prec=50)):
        span, first = (decimal.Decimal(256) / decimal.Decimal("0.11")).ln(), decimal.Decimal("0.11").ln()
        assert round(63 / span * 2**20) == _ROWS_PER_E_FOLD
        assert round(first * 2**14) == _FIRST_LOG


def test_rounding_is_half_up():
    assert exact.shift(torch.tensor([-6, -5, -2, 2, 5, 6]), 2).tolist() == [-1, -1, 0, 1, 1, 2]
    assert exact.shift(torch.tensor([-3, 3]), 0).tolist() == [-3, 3]
    assert fixed(torch.tensor([-0.5, 0.5, 1.5, -1.5]), 0).tolist() == [0, 1, 2, -1]


def test_zeros_lie_beyond_the_border():
    layer = halved(nn.Conv2d(3, 2, 3, padding=1))
    a = activations(1, 4, 4, 3)
    assert torch.equal(Taps.of(layer)(F.pad(a, (0, 0, 1, 1, 1, 1)))[:, 1:-1, 1:-1], Taps.of(layer)(a))
