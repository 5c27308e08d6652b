"""Networks that compute the same integers on every machine.

An entropy model must say the same on both ends of a wire. Sums of floats depend on their order, so on threads, batch,
library and device; sums of integers do not. Here every number between the decoded symbols and the index of a frequency
table is an integer:

- an activation a stands for a / 2**bits, and never leaves -LIMIT .. LIMIT;
- a weight of output channel o is round(w 2**e), e the largest for which that channel's weights fit in eight bits;
- an output is a sum of their products, shifted right with rounding;
- logarithms are fixed point, exponentials come from tables that decimal arithmetic makes to the last digit.

How the products are summed is nobody's concern as long as every sum is exact. Two ways are: int8 matrix products with
32-bit sums, on processors that have them; and float64, below 2**53, everywhere. Both are matrix products, never
convolutions, as libraries may convolve by Winograd's or Fourier's way, which are exact on no numbers at all.

Shapes: activations are int32 (B, H, W, C) or (..., C), channels last.
"""

import decimal
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from components.errors import CotamError

BITS = 10  # an activation is a multiple of 2**-10 ...
LIMIT = (1 << 23) - 1  # ... between these bounds
WEIGHT_LIMIT = 127
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


@cache
def _multiplies_bytes() -> bool:
    """Whether this processor multiplies int8 matrices with 32-bit sums.

    Without VNNI instructions, oneDNN adds pairs of products in 16 bits, where they can saturate; also where it was told
    to do without them (ONEDNN_MAX_CPU_ISA). So the largest products are tried.
    """
    known = getattr(torch.cpu, "_is_vnni_supported", None)
    if not (known and known() and torch.backends.mkldnn.is_available()):
        return False
    left_MK = torch.tensor([127, -128], dtype=torch.int8).repeat(16)[:, None].repeat(1, 640)
    right_KO = torch.tensor([127, -127], dtype=torch.int8).repeat(16).repeat(640, 1)
    return torch.equal(torch._int_mm(left_MK, right_KO).long(), left_MK.long() @ right_KO.long())


@dataclass(frozen=True)
class Rows:
    """Quantized weights: every output with an exponent of its own.

    Attributes:
        weight_OK: int64.
        bias_O: int64, in the unit of the sums.
        shift_O: int64, 0 or more: how far a sum is shifted to become an output.
    """

    weight_OK: Tensor
    bias_O: Tensor
    shift_O: Tensor


def quantize(weight_OK: Tensor, bias_O: Tensor | None, in_bits: int = BITS, out_bits: int = BITS) -> Rows:
    """Weights (O, K) and biases of a layer as integers.

    Args:
        weight_OK: real weights of each output; float16 or float32 values.
        bias_O: real biases; None: zeros.
        in_bits, out_bits: fraction bits of input and output.

    Raises:
        CotamError: the weights are damaged, or so large that a sum could be more than float64 can hold exactly.
    """
    weight_OK = weight_OK.detach().cpu().double()
    bias_O = weight_OK.new_zeros(len(weight_OK)) if bias_O is None else bias_O.detach().cpu().double()
    # The largest e with max |w| 2**e <= 127 (7 for zeros), but no shift may be negative.
    mantissa_O, exponent_O = torch.frexp(weight_OK.abs().amax(1))
    e_O = 7 - exponent_O.long() - (mantissa_O > WEIGHT_LIMIT / 128).long()
    e_O = e_O.clamp(out_bits - in_bits, LARGEST_EXPONENT)
    quantized_OK = fixed(weight_OK, e_O.numpy()[:, None])
    rows = Rows(quantized_OK, fixed(bias_O, (e_O + in_bits).numpy()), e_O + in_bits - out_bits)
    # In Python's integers, which do not overflow.
    totals, shifts = rows.weight_OK.abs().sum(1).tolist(), rows.shift_O.tolist()
    for total, bias, bits in zip(totals, rows.bias_O.abs().tolist(), shifts, strict=True):
        if total * LIMIT + bias + (1 << bits) >= EXACT:
            raise CotamError("The codec's weights are too large to be summed exactly; train it with smaller ones.")
    return rows


class Product:
    """Integer matrix product, shift and clip: what linear layers and convolutions are made of.

    Args:
        rows: quantized weights.
        relu: clip outputs below at zero.
    """

    def __init__(self, rows: Rows, relu: bool = False):
        self.low = 0 if relu else -LIMIT
        self.shift_O = rows.shift_O.int()
        self.offset_O = rows.bias_O + ((torch.ones_like(rows.shift_O) << rows.shift_O) >> 1)  # a half, for rounding
        self.scale_O = torch.from_numpy(np.ldexp(1.0, -rows.shift_O.numpy()))
        self.weight_KO = rows.weight_OK.T.double().contiguous()
        self._most_weight = int(rows.weight_OK.abs().sum(1).amax())  # of an output, all together
        self._most_offset = int(self.offset_O.abs().amax())
        fits = int(rows.weight_OK.abs().amax()) <= WEIGHT_LIMIT and self._most_weight < 1 << 24
        self.bytes_KO = rows.weight_OK.T.to(torch.int8).contiguous() if fits else None

    @classmethod
    def of(cls, layer: nn.Linear | nn.Conv2d, relu: bool = False, **bits: int) -> "Product":
        """A linear layer, or a convolution of 1 x 1."""
        return cls(quantize(layer.weight.flatten(1), layer.bias, **bits), relu)

    def to(self, device: torch.device | str) -> "Product":
        """Move to a device."""
        for name in ("shift_O", "offset_O", "scale_O", "weight_KO"):
            setattr(self, name, getattr(self, name).to(device))
        return self

    def __call__(self, a: Tensor, take: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Activations (..., K) int32 -> (..., O) int32.

        Args:
            a: inputs; those missing at the end of K count as zeros.
            take: gathers from `a` what is multiplied, in whatever type it is given (see `Taps`).
        """
        return self._with_bytes(a, take) if self._in_bytes(a) else self._with_doubles(a, take)

    def _in_bytes(self, a: Tensor) -> bool:
        usable = self.bytes_KO is not None and a.device.type == "cpu" and a.numel() > 0
        return usable and torch.backends.mkldnn.enabled and _multiplies_bytes()

    def _with_doubles(self, a: Tensor, take: Callable[[Tensor], Tensor] | None) -> Tensor:
        taken = a.double() if take is None else take(a.double())
        sums = taken @ self.weight_KO[: taken.shape[-1]]
        return sums.add_(self.offset_O).mul_(self.scale_O).floor_().clamp_(self.low, LIMIT).int()

    def _with_bytes(self, a: Tensor, take: Callable[[Tensor], Tensor] | None) -> Tensor:
        """As sum of 256**i digit[i], with digits from -128 to 127."""
        largest = max(map(abs, map(int, a.aminmax())))
        # A digit and what is left above it are at most 128 and `largest` + 128: so no sum leaves this type.
        small = self._most_weight * (largest + 256) + self._most_offset < 1 << 31
        kind = torch.int32 if small else torch.int64
        sums = None
        for place, digit in enumerate(_digits(a, largest)):
            taken = digit if take is None else take(digit)
            part = torch._int_mm(taken.flatten(0, -2), self.bytes_KO[: taken.shape[-1]])
            part = part.unflatten(0, taken.shape[:-1]).to(kind)
            sums = part if sums is None else sums.add_(part, alpha=1 << 8 * place)
        sums.add_(self.offset_O.to(kind)).bitwise_right_shift_(self.shift_O.to(kind))
        return sums.clamp_(self.low, LIMIT).int()


def _digits(a: Tensor, largest: int) -> Iterator[Tensor]:
    """The bytes of integers, lowest first, as many as the largest needs; signed, so that their sum is the integer."""
    while largest > 127:
        above = a + 128
        yield ((above & 255) - 128).to(torch.int8)
        a = above >> 8
        largest = (largest + 128) >> 8
    yield a.to(torch.int8)


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
    def of(cls, layer: nn.Conv2d, relu: bool = False, mask: Callable[[int, int], bool] | None = None) -> "Taps":
        """A convolution of stride 1 that keeps the size; only the taps (row, column) that `mask` keeps."""
        height, width = layer.kernel_size
        taps = [(y, x) for y, x in np.ndindex(height, width) if mask is None or mask(y, x)]
        weight_OTC = torch.stack([layer.weight[:, :, y, x] for y, x in taps], 1)
        rows = quantize(weight_OTC.flatten(1), layer.bias)
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
    """

    def __init__(self, layer: nn.ConvTranspose2d, relu: bool = False):
        weight_OYXC = layer.weight.permute(1, 2, 3, 0)
        outputs, height, width, channels = weight_OYXC.shape
        rows = quantize(weight_OYXC.flatten(1), layer.bias)  # one exponent for all four
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
