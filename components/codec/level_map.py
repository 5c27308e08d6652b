"""The guidance map in the stream: a grid of levels -1, 0, +1 (paper, section 3.2), and where its cells fall.

Levels are coded row by row with the same arithmetic coder as the latent. What a level is likely to be depends on its
left and upper neighbours; the frequencies are constants of the format.
"""

import numpy as np
from numpy.typing import NDArray

from components.codec.container import MAXIMUM_CELLS
from components.errors import CotamError

LEVELS = (-1, 0, 1)

# Frequencies of -1, 0, +1 in 1/65536, by the sum of the left and the upper neighbour (-2 .. 2; outside counts as 0).
FREQUENCIES = (
    (34000, 27536, 4000),
    (23000, 36536, 6000),
    (14000, 39536, 12000),
    (6000, 35536, 24000),
    (3000, 26536, 36000),
)


def context(levels: NDArray[np.int8], row: int, column: int) -> int:
    """Which of `FREQUENCIES` the cell (row, column) is coded with, given the cells before it."""
    left = int(levels[row, column - 1]) if column else 0
    upper = int(levels[row - 1, column]) if row else 0
    return left + upper + 2


def contexts(levels: NDArray[np.int8]) -> list[int]:
    """The contexts of all cells, row by row."""
    rows, columns = levels.shape
    return [context(levels, row, column) for row in range(rows) for column in range(columns)]


def cost_bits(levels: NDArray[np.int8]) -> float:
    """What a map costs in the stream."""
    chances = np.array(FREQUENCIES)[contexts(levels), levels.reshape(-1).astype(int) + 1] / 65536
    return float(-np.log2(chances).sum())


def check(levels: NDArray) -> NDArray[np.int8]:
    """The map as int8.

    Raises:
        CotamError: it is no table of -1, 0 and 1, is empty, or has too many cells on a side.
    """
    if levels.ndim != 2 or not 1 <= min(levels.shape) <= max(levels.shape) <= MAXIMUM_CELLS:
        raise CotamError(
            f"A level map of shape {levels.shape} cannot be coded; give 1 to {MAXIMUM_CELLS} cells a side."
        )
    if not np.isin(levels, LEVELS).all():
        raise CotamError("A level map holds only -1, 0 and 1; quantize it first (components.codec.guidance).")
    return levels.astype(np.int8)


def quality_map(
    quality: int, size: tuple[int, int], levels: NDArray[np.int8] | None, qualities: int
) -> NDArray[np.int64]:
    """Quality of every latent position.

    Args:
        quality: the base quality.
        size: rows and columns of the latent.
        levels: (rows, columns) in {-1, 0, 1}, laid over the whole latent, or None.
        qualities: how many there are.

    Returns:
        int64, `size`: base plus the level of the cell in which the position's centre lies, clipped to what there is.
    """
    if levels is None:
        return np.full(size, quality, np.int64)
    rows, columns = (
        (2 * np.arange(extent) + 1) * cells // (2 * extent) for extent, cells in zip(size, levels.shape, strict=True)
    )
    return np.clip(quality + levels[rows][:, columns].astype(np.int64), 0, qualities - 1)
