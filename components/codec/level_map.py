"""The guidance map in the stream: a grid of levels -1, 0, +1 (paper, section 3.2), and where its cells fall.

Levels are coded row by row with the same arithmetic coder as the latent. What a level is likely to be depends on its
left and upper neighbours, and on whether anything was lowered so far: most maps lower nothing. The frequencies are
constants of the format, counted in real maps by pipelines/pretrain/count_levels.py. None is below 1/64, so that any map
whatever can be coded, at six bits a cell at most.

A map may have five or seven levels, for the paper's ablation (A.6): its signs are coded as a map of three, and then,
step by step, which of the cells that came so far go one further. A map of three levels is coded as if there were no
others.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from components.codec.container import MAXIMUM_CELLS
from components.errors import CotamError

STEPS = 3
"""The furthest level from zero that can be coded: maps have up to seven levels."""

# Frequencies of -1, 0, +1 in 1/65536. While no -1 has come yet: by the sum of the left and the upper neighbour, 0 to 2.
# From then on: by the same sum, -2 to 2. Neighbours outside count as 0.
FREQUENCIES = (
    (1486, 56632, 7418),
    (1614, 55154, 8768),
    (1369, 53828, 10339),
    (20306, 33107, 12123),
    (17239, 33937, 14360),
    (13138, 38939, 13459),
    (14123, 39164, 12249),
    (15611, 39033, 10892),
)
CONTEXTS = len(FREQUENCIES)
FURTHER = 2  # the row whose 0 and +1 say whether a cell goes one step further


def steps_of(levels: NDArray[np.int8] | None) -> int:
    """How far from zero the levels of a map go, at least 1; the stream's version says it (container.py)."""
    return 1 if levels is None else max(1, int(np.abs(levels).max()))


def symbols(levels: NDArray[np.int8]) -> tuple[list[int], list[int]]:
    """What is coded for a map, in order, and which of `FREQUENCIES` each symbol is coded with."""
    signs, sizes = np.sign(levels), np.abs(levels)
    found, rows = signs.reshape(-1).tolist(), contexts(signs)
    for step in range(1, steps_of(levels)):
        further = (sizes[sizes >= step] > step).astype(int).tolist()
        found, rows = found + further, rows + [FURTHER] * len(further)
    return found, rows


def contexts(levels: NDArray[np.int8]) -> list[int]:
    """Which of `FREQUENCIES` each cell of a map of three levels is coded with, row by row."""
    padded = np.pad(levels.astype(np.int64), ((1, 0), (1, 0)))
    total = (padded[1:, :-1] + padded[:-1, 1:]).reshape(-1)
    lowered = np.cumsum(levels.reshape(-1) < 0)
    return np.where(np.concatenate([[0], lowered[:-1]]) > 0, total + 5, total).tolist()


def read(grid: tuple[int, int], draw: Callable[[int], int], steps: int = 1) -> NDArray[np.int8]:
    """The map that a decoder finds.

    Args:
        grid: its rows and columns.
        draw: context -> the next level in the stream.
        steps: how far from zero its levels go.
    """
    rows, columns = grid
    levels, lowered = np.zeros(grid, np.int8), False
    upper = [0] * columns
    for row in range(rows):
        left = 0
        for column in range(columns):
            left = upper[column] = draw(left + upper[column] + (5 if lowered else 0))
            lowered = lowered or left < 0
        levels[row] = upper
    for step in range(1, steps):
        for row, column in np.argwhere(np.abs(levels) >= step):
            if draw(FURTHER) > 0:
                levels[row, column] += np.sign(levels[row, column])
    return levels


def cost_bits(levels: NDArray[np.int8]) -> float:
    """What a map costs in the stream."""
    coded, rows = symbols(levels)
    chances = np.array(FREQUENCIES)[rows, np.array(coded) + 1] / 65536
    return float(-np.log2(chances).sum())


def check(levels: NDArray) -> NDArray[np.int8]:
    """The map as int8.

    Raises:
        CotamError: it is no table of whole numbers from -3 to 3, is empty, or has too many cells on a side.
    """
    if levels.ndim != 2 or not 1 <= min(levels.shape) <= max(levels.shape) <= MAXIMUM_CELLS:
        raise CotamError(
            f"A level map of shape {levels.shape} cannot be coded; give 1 to {MAXIMUM_CELLS} cells a side."
        )
    if not np.isin(levels, range(-STEPS, STEPS + 1)).all():
        raise CotamError("A level map holds whole numbers from -3 to 3; quantize it first (components.codec.guidance).")
    return levels.astype(np.int8)


def quality_map(
    quality: int, size: tuple[int, int], levels: NDArray[np.int8] | None, qualities: int
) -> NDArray[np.int64]:
    """Quality of every latent position.

    Args:
        quality: the base quality.
        size: rows and columns of the latent.
        levels: (rows, columns) from -3 to 3, laid over the whole latent, or None.
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
