"""Integer matrix products with 32-bit inputs and exact sums: what the layers of `exact.py` are made of.

Two ways give the same integers. On processors that multiply bytes, inputs and weights are sums of 256**i digit[i] with
signed digits of eight bits, and every product of digits is one of int8 matrices with 32-bit sums. Everywhere else it
is float64 with sums below 2**53.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

LIMIT = (1 << 23) - 1  # outputs lie between -LIMIT and LIMIT
DIGIT = 127  # the largest; the smallest is -128
TWO_DIGITS = 257 * DIGIT


@cache
def multiplies_bytes() -> bool:
    """Whether this processor multiplies int8 matrices with 32-bit sums.

    Without VNNI instructions, oneDNN adds pairs of products in 16 bits, where they can saturate; also where it was told
    to do without them (ONEDNN_MAX_CPU_ISA). So the largest products are tried.
    """
    known = getattr(torch.cpu, "_is_vnni_supported", None)
    if not (known and known() and torch.backends.mkldnn.is_available()):
        return False
    left_MK = torch.tensor([127, -128], dtype=torch.int8).repeat(16)[:, None].repeat(1, 640)
    right_KO = torch.tensor([127, -128], dtype=torch.int8).repeat(16).repeat(640, 1)
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


class Product:
    """Integer matrix product, shift and clip.

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
        largest, inputs = int(rows.weight_OK.abs().amax()), rows.weight_OK.shape[1]
        fits = largest <= TWO_DIGITS and 2 * inputs * (DIGIT + 1) ** 2 < 1 << 31
        self.digits_KO = [digit.T.contiguous() for digit in _digits(rows.weight_OK, largest)] if fits else []
        # The most that an output's weights add up to, digit by digit.
        sums = [digit.long().abs().sum(0) << 8 * place for place, digit in enumerate(self.digits_KO)]
        self._most_weight = int(sum(sums).amax()) if fits else 0
        self._most_offset = int(self.offset_O.abs().amax())
        self._least_shift = int(rows.shift_O.amin())

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
        usable = bool(self.digits_KO) and a.device.type == "cpu" and a.numel() > 0
        return usable and torch.backends.mkldnn.enabled and multiplies_bytes()

    def _with_doubles(self, a: Tensor, take: Callable[[Tensor], Tensor] | None) -> Tensor:
        taken = a.double() if take is None else take(a.double())
        sums = taken @ self.weight_KO[: taken.shape[-1]]
        return sums.add_(self.offset_O).mul_(self.scale_O).floor_().clamp_(self.low, LIMIT).int()

    def _with_bytes(self, a: Tensor, take: Callable[[Tensor], Tensor] | None) -> Tensor:
        """As the sum of 256**t part[t], each the products of all pairs of digits i + j = t."""
        largest = max(map(abs, map(int, a.aminmax())))
        taken = [digit if take is None else take(digit) for digit in _digits(a, largest)]
        shape = taken[0].shape[:-1]
        taken = [digit.flatten(0, -2) for digit in taken]
        weights = [digit_KO[: taken[0].shape[1]] for digit_KO in self.digits_KO]
        # What no sum exceeds on the way: of a number's digits each but the last adds at most 256 of its unit to it.
        most = self._most_weight * (largest + sum(256 << 8 * k for k in range(len(taken) - 1))) + self._most_offset
        # The lowest eight bits of what does not fit into 32 are only carried; they would be shifted away anyway.
        carried = 8 if most >> 31 and self._least_shift >= 8 else 0
        kind = torch.int64 if most >> (31 + carried) else torch.int32
        low_O = (self.offset_O & ((1 << carried) - 1)).to(kind)
        offset_O, shift_O = (self.offset_O >> carried).to(kind), (self.shift_O - carried).to(kind)

        sums, *others = _parts(taken, weights)
        sums = sums.to(kind)
        if carried:
            sums.add_(low_O).bitwise_right_shift_(carried)
        for t, part in enumerate(others, 1):
            sums.add_(part.to(kind), alpha=1 << (8 * t - carried))
        sums.add_(offset_O).bitwise_right_shift_(shift_O)
        return sums.clamp_(self.low, LIMIT).int().unflatten(0, shape)


def _parts(taken: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    """For every t the sum of the products of digits i of the inputs (P, K) and j of the weights (K, O), i + j = t."""
    parts: list[Tensor] = []
    for i, digit_PK in enumerate(taken):
        for j, weight_KO in enumerate(weights):
            product_PO = torch._int_mm(digit_PK, weight_KO)
            if i + j < len(parts):
                parts[i + j].add_(product_PO)
            else:
                parts.append(product_PO)
    return parts


def _digits(a: Tensor, largest: int) -> Iterator[Tensor]:
    """The bytes of integers, lowest first, as many as the largest needs; signed, so that their sum is the integer."""
    while largest > DIGIT:
        yield a.to(torch.int8)  # keeps the lowest byte
        a = (a + 128) >> 8
        largest = (largest + 128) >> 8
    yield a.to(torch.int8)
