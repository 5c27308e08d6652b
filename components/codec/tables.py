"""The frequency tables of the entropy coder: level map, escapes, a codec's own rows, Gaussians of 64 scales."""

import zlib
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from components.codec import escapes, level_map
from components.codec.exact_elic import FINE_FRACTION_BITS, FRACTION_BITS, ROWS
from components.codec.hyperprior import SMALLEST_SCALE
from components.errors import CotamError

FRACTION = 1 << FRACTION_BITS  # of a unit: of what means are multiples, but for a codec with `fine_entropy`
SCALES = np.geomspace(SMALLEST_SCALE, 256, ROWS)
_TABLES_CHECK = 0x6AD64E72  # CRC-32 of the frequencies of all Gaussian rows, as docs/bitstream.md has it
TOTAL = 1 << 16  # of the frequencies in a row
LEVEL_ROWS = level_map.CONTEXTS


def _bounds() -> NDArray[np.int64]:
    """The largest symbol of each scale. An encoder clips to it, or writes escapes (`fine_entropy`)."""
    return np.ceil(8 * SCALES).astype(np.int64) + 7


@cache
def _gaussian_rows() -> list[list[int]]:
    rows = [_gaussian_row(scale, bound) for scale, bound in zip(SCALES, _bounds(), strict=True)]
    if zlib.crc32(np.concatenate([np.diff(row) for row in rows]).astype("<u4").tobytes()) != _TABLES_CHECK:
        raise CotamError("SciPy's normal distribution is not accurate on this machine; install another SciPy.")
    return rows


def _gaussian_row(scale: float, bound: int) -> list[int]:
    """Cumulative frequencies of the symbols -bound .. bound, each at least 1."""
    symbols = np.arange(-bound, bound + 1)
    chances = ndtr((symbols + 0.5) / scale) - ndtr((symbols - 0.5) / scale)
    frequencies = np.floor(chances * (TOTAL - len(symbols))).astype(np.int64) + 1
    frequencies[bound] += TOTAL - frequencies.sum()
    return [0, *np.cumsum(frequencies).tolist()]


class Tables:
    """Frequency tables as CompressAI's coder takes them: the contexts of the level map, a codec's own, the Gaussians.

    Each row ends with a symbol of frequency zero, which is the coder's escape: no stream, however damaged, can reach
    it. That bounds what a decoder may read: one 32-bit word for every symbol.

    Rows are numbered from the first Gaussian on; a codec's own are before it, the last is -1. Before these is the row
    of the escapes, if there are any.

    Args:
        own: frequencies of the codec's own rows, of symbols around 0, and so odd in number.
        fine: for a codec with `fine_entropy`: symbols may lie beyond their rows' ends.

    Raises:
        CotamError: this machine's normal distribution is so wrong that other frequencies come out.
    """

    def __init__(self, own: Sequence[NDArray[np.int64]] = (), fine: bool = False):
        gaussian_bounds, own_bounds = _bounds(), np.array([len(row) // 2 for row in own], np.int64)
        self.bounds = np.concatenate([gaussian_bounds, own_bounds])  # so that negative numbers find their own
        self.fraction = 1 << (FINE_FRACTION_BITS if fine else FRACTION_BITS)
        before = [*level_map.FREQUENCIES, *([escapes.FREQUENCIES] if fine else [])]
        self.first = len(before) + len(own)
        self.escape = -1 - len(own) if fine else None
        rows = [[0, *np.cumsum(row).tolist()] for row in (*before, *own)] + _gaussian_rows()
        self.rows = [[*row, TOTAL] for row in rows]
        self.sizes = [len(row) for row in self.rows]
        level_offsets, escape_offset = [-1] * LEVEL_ROWS, [0] * fine
        self.offsets = level_offsets + escape_offset + (-own_bounds).tolist() + (-gaussian_bounds).tolist()

    def upto(self, highest: int) -> tuple[list, list, list]:
        """Tables without the rows after `highest`: handing them to the coder copies them."""
        return self.rows[: highest + 1], self.sizes[: highest + 1], self.offsets[: highest + 1]


TABLES = Tables()
LEAST_BITS = float(np.log2(TOTAL / max(np.diff(row).max() for row in TABLES.rows[TABLES.first :])))  # of a symbol
