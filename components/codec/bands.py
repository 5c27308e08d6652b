"""An exact entropy model in bands of rows, so that a large latent's memory is what a band needs.

Integers are the same whatever is computed beside them, so this changes no bit of any stream: a band with enough rows
around it says of its own rows what the whole would say.
"""

import torch
from torch import Tensor

from components.codec.config import HYPER_STRIDE
from components.codec.exact_elic import ExactElic

PLACES = 1 << 14  # of a band: beyond that nothing is faster
HYPER_HALO = 2  # rows of the hyper latent that its synthesis looks at, on either side
HALO = 1  # rows that the channel context looks at


class InBands:
    """The same as the model that it holds, a band after the other. Rows of a band start at an even one."""

    def __init__(self, exact: ExactElic):
        self.exact = exact
        self.hyper_prior, self.units, self.config = exact.hyper_prior, exact.units, exact.config
        self.own_rows, self.fraction_bits = exact.own_rows, exact.fraction_bits

    def side(self, z_BHWC: Tensor, quality_map_BHW: Tensor) -> Tensor:
        """As `ExactElic.side`."""
        height, width = quality_map_BHW.shape[-2:]
        parts = []
        for start, stop, first, last in _bands(-(-height // HYPER_STRIDE), width * HYPER_STRIDE, HYPER_HALO):
            rows = quality_map_BHW[:, HYPER_STRIDE * first : HYPER_STRIDE * last]
            found = self.exact.side(z_BHWC[:, first:last], rows)
            parts.append(found[:, HYPER_STRIDE * (start - first) : HYPER_STRIDE * (stop - first)])
        return torch.cat(parts, 1)

    def before(self, k: int, side_BHWS: Tensor, units_BHWC: Tensor) -> Tensor:
        """As `ExactElic.before`."""
        if k == 0:
            return side_BHWS
        parts = []
        for start, stop, first, last in _bands(*side_BHWS.shape[1:3], HALO):
            found = self.exact.before(k, side_BHWS[:, first:last], units_BHWC[:, first:last])
            parts.append(found[:, start - first : stop - first])
        return torch.cat(parts, 1)

    def parameters_of(
        self, k: int, before_BPF: Tensor, anchors_BHWG: Tensor | None, qualities_BP: Tensor, channels: slice
    ) -> tuple[Tensor, Tensor]:
        """As `ExactElic.parameters_of`."""
        if anchors_BHWG is None:
            portions = zip(before_BPF.split(PLACES, 1), qualities_BP.split(PLACES, 1), strict=True)
            found = [self.exact.parameters_of(k, known, None, places, channels) for known, places in portions]
        else:
            found = []
            height, width = anchors_BHWG.shape[1:3]
            halo = self.config.context_kernel // 2
            for start, stop, first, last in _bands(height, width, halo):
                # Of an even number of rows, half of the places are no anchors.
                seen = slice(first * width // 2, _others(last, width))
                kept = slice((start - first) * width // 2, _others(stop, width) - seen.start)
                parts = self.exact.parameters_of(
                    k, before_BPF[:, seen], anchors_BHWG[:, first:last], qualities_BP[:, seen], channels
                )
                found.append([part[:, kept].clone() for part in parts])
        means, rows = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
        return means, rows


def _others(rows: int, width: int) -> int:
    """How many places of these first rows are no anchors (row + column odd)."""
    return rows * width // 2


def _bands(height: int, width: int, halo: int) -> list[tuple[int, int, int, int]]:
    """start, stop, and with the halo first, last, of each band; start and first are even."""
    halo += halo % 2
    step = max(2, PLACES // width // 2 * 2)
    starts = range(0, height, step)
    return [(a, min(height, a + step), max(0, a - halo), min(height, a + step + halo)) for a in starts]
