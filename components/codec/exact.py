"""Networks that compute the same integers on every machine.

An entropy model must say the same on both ends of a wire. Sums of floats depend on their order, so on threads, batch,
library and device; sums of integers do not. Here every number between the decoded symbols and the index of a frequency
table is an integer:

- an activation a stands for a / 2**bits, and never leaves -LIMIT .. LIMIT;
- a weight of output channel o is round(w 2**e), e the largest for which that channel's weights fit in eight bits, or
  in sixteen where a codec's `fine_entropy` asks for it;
- an output is a sum of their products, shifted right with rounding;
- logarithms are fixed point, exponentials come from tables that decimal arithmetic makes to the last digit.

How the products are summed (`products.py`) is nobody's concern as long as every sum is exact. They are matrix products,
never convolutions, as libraries may convolve by Winograd's or Fourier's way, which are exact on no numbers at all.

Shapes: activations are int32 (B, H, W, C) or (..., C), channels last.
"""

import decimal
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from components.codec.products import DIGIT, LIMIT, Product, Rows
from components.errors import CotamError

BITS = 10  # an activation is a multiple of 2**-10, between -LIMIT and LIMIT
TABLE_LIMIT = (1 << 29) - 1  # of factors out of tables; LIMIT times this is below 2**53
EXACT = 1 << 52  # sums below it are exact in float64, with one bit to spare
LARGEST_EXPONENT = 24


def fixed(values: Tensor, bits: int | NDArray[np.int64]) -> Tensor:
    """floor(x 2**bits + 1/2) as int64; exact for float16 and float32 parameters, which are multiples of 2**-24.

    Raises:
        CotamError: a value is not finite, or too large for this grid.
    """
    # NumPy's ldexp is C's, and exact; torch's multiplies by a power that it computes.
    scaled = torch.floor(torch.from_numpy(np.ldexp(values.detach().cpu().double().numpy(), bits)) + 0.5)
    if not bool((scaled.abs() < EXACT).all()):  # NaN is not below anything
        raise CotamError("The codec's weights are damaged: one is infinite or far too large; copy the folder again.")
    return scaled.long()


def exp_fixed(logs: Tensor, bits: int, limit: int = TABLE_LIMIT) -> Tensor:
    """round(exp(x) 2**bits), at most `limit`, as int64.

    Computed in decimal arithmetic with 40 digits, whose exponential is correctly rounded: no library of the machine
    has a say.
    """
    flat = logs.detach().cpu().double().flatten().tolist()
    if not all(map(math.isfinite, flat)):
        raise CotamError("The codec's weights are damaged: one is infinite; copy the folder again.")
    return torch.tensor([_exp_fixed(x, bits, limit) for x in flat], dtype=torch.int64).reshape(logs.shape)


@lru_cache(1 << 16)
def _exp_fixed(x: float, bits: int, limit: int) -> int:
    if x * 1.4426 + bits > 60:  # exp(x) 2**bits is above 2**59, whatever the rounding of this test
        return limit
    with decimal.localcontext(decimal.Context(prec=40)):
        value = decimal.Decimal(x).exp() * (1 << bits)
        return min(int(value.to_integral_value(decimal.ROUND_HALF_EVEN)), limit)


def shift(values: Tensor, bits: int) -> Tensor:
    """floor(x / 2**bits + 1/2) of integers, for bits >= 0."""
    return (values + (1 << bits >> 1)) >> bits


def activation(values: Tensor) -> Tensor:
    """Integers clipped to what an activation may be, int32."""
    return values.clamp(-LIMIT, LIMIT).int()


def quantize(weight_OK: Tensor, bias_O: Tensor | None, out_bits: int = BITS, largest: int = DIGIT) -> Rows:
    """Weights (O, K) and biases of a layer as integers.

    Args:
        weight_OK: real weights of each output; float16 or float32 values.
        bias_O: real biases; None: zeros.
        out_bits: fraction bits of the output.
        largest: what a weight may be: DIGIT or TWO_DIGITS.

    Raises:
        CotamError: the weights are damaged, or so large that a sum could be more than float64 can hold exactly.
    """
    weight_OK = weight_OK.detach().cpu().double()
    bias_O = weight_OK.new_zeros(len(weight_OK)) if bias_O is None else bias_O.detach().cpu().double()
    # The largest e with max |w| 2**e <= largest (7 for zeros), but no shift may be negative.
    bits = largest.bit_length()
    mantissa_O, exponent_O = torch.frexp(weight_OK.abs().amax(1))
    e_O = bits - exponent_O.long() - (mantissa_O > largest / (1 << bits)).long()
    e_O = torch.where(mantissa_O > 0, e_O, 7).clamp(out_bits - BITS, LARGEST_EXPONENT)
    quantized_OK = fixed(weight_OK, e_O.numpy()[:, None])
    rows = Rows(quantized_OK, fixed(bias_O, (e_O + BITS).numpy()), e_O + BITS - out_bits)
    # In Python's integers, which do not overflow.
    totals, shifts = rows.weight_OK.abs().sum(1).tolist(), rows.shift_O.tolist()
    for total, bias, bits in zip(totals, rows.bias_O.abs().tolist(), shifts, strict=True):
        if total * LIMIT + bias + (1 << bits) >= EXACT:
            raise CotamError("The codec's weights are too large to be summed exactly; train it with smaller ones.")
    return rows


@lru_cache(32)
def _neighbours(
    height: int, width: int, offsets: tuple[tuple[int, int], ...], parity: int | None, device: torch.device
) -> Tensor:
    """(P, T): where the taps of every place lie in a list of height * width places; the one after them is outside."""
    rows, columns = np.indices((height, width)).reshape(2, -1)
    if parity is not None:
        kept = (rows + columns) % 2 == parity
        rows, columns = rows[kept], columns[kept]
    dy, dx = np.array(offsets).T
    y, x = rows[:, None] + dy, columns[:, None] + dx
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    return torch.from_numpy(np.where(inside, y * width + x, height * width)).to(device)


def product(layer: nn.Linear | nn.Conv2d, relu: bool = False, out_bits: int = BITS, largest: int = DIGIT) -> Product:
    """A linear layer, or a convolution of 1 x 1."""
    return Product(quantize(layer.weight.flatten(1), layer.bias, out_bits, largest), relu)


class Taps:
    """A product over the neighbourhood of every place: a convolution with zeros beyond the borders.

    Args:
        rows: quantized weights, K in the order tap, channel.
        offsets: row and column of each tap, seen from the place that is computed.
        relu: clip outputs below at zero.
    """

    def __init__(self, rows: Rows, offsets: Sequence[tuple[int, int]], relu: bool = False):
        self.offsets, self.product = tuple(offsets), Product(rows, relu)

    @classmethod
    def of(
        cls,
        layer: nn.Conv2d,
        relu: bool = False,
        mask: Callable[[int, int], bool] | None = None,
        largest: int = DIGIT,
    ) -> "Taps":
        """A convolution of stride 1 that keeps the size; only the taps (row, column) that `mask` keeps."""
        height, width = layer.kernel_size
        taps = [(y, x) for y, x in np.ndindex(height, width) if mask is None or mask(y, x)]
        weight_OTC = torch.stack([layer.weight[:, :, y, x] for y, x in taps], 1)
        rows = quantize(weight_OTC.flatten(1), layer.bias, largest=largest)
        return cls(rows, [(y - layer.padding[0], x - layer.padding[1]) for y, x in taps], relu)

    def to(self, device: torch.device | str) -> "Taps":
        """Move to a device."""
        self.product.to(device)
        return self

    def at(self, a_BHWC: Tensor, parity: int | None = None) -> Tensor:
        """Outputs (B, P, O) at all places, or only where (row + column) % 2 is `parity`; row by row."""
        height, width = a_BHWC.shape[1:3]
        places_PT = _neighbours(height, width, self.offsets, parity, a_BHWC.device)

        def take(values_BHWC: Tensor) -> Tensor:
            padded_BLC = F.pad(values_BHWC.flatten(1, 2), (0, 0, 0, 1))
            return padded_BLC.index_select(1, places_PT.flatten()).unflatten(1, places_PT.shape).flatten(2)

        return self.product(a_BHWC, take)

    def __call__(self, a_BHWC: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, O)."""
        return self.at(a_BHWC).unflatten(1, a_BHWC.shape[1:3])


class Doubling:
    """A transposed convolution of stride 2: four convolutions, one for each place of a 2 x 2 block.

    Args:
        layer: whose output is twice as high and wide as its input.
        relu: clip outputs below at zero.
        largest: as in `quantize`.
    """

    def __init__(self, layer: nn.ConvTranspose2d, relu: bool = False, largest: int = DIGIT):
        weight_OYXC = layer.weight.permute(1, 2, 3, 0)
        outputs, height, width, channels = weight_OYXC.shape
        rows = quantize(weight_OYXC.flatten(1), layer.bias, largest=largest)  # one exponent for all four
        quantized_OYXC = rows.weight_OK.reshape(outputs, height, width, channels)
        self.phases = []
        for row, column in np.ndindex(2, 2):
            up, left = row + layer.padding[0], column + layer.padding[1]
            taps = [(y, x) for y, x in np.ndindex(height, width) if (up - y) % 2 == (left - x) % 2 == 0]
            offsets = [((up - y) // 2, (left - x) // 2) for y, x in taps]
            chosen_OK = torch.stack([quantized_OYXC[:, y, x] for y, x in taps], 1).flatten(1)
            self.phases.append(Taps(replace(rows, weight_OK=chosen_OK), offsets, relu))

    def to(self, device: torch.device | str) -> "Doubling":
        """Move to a device."""
        for phase in self.phases:
            phase.to(device)
        return self

    def __call__(self, a_BHWC: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, 2 H, 2 W, O)."""
        batch, height, width, _ = a_BHWC.shape
        blocks_BHWYXO = torch.stack([phase(a_BHWC) for phase in self.phases], 3).unflatten(3, (2, 2))
        return blocks_BHWYXO.transpose(2, 3).reshape(batch, 2 * height, 2 * width, -1)
