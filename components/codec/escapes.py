"""Symbols beyond the ends of their rows: what is left over is written in digits after the symbols of its part.

A row of a frequency table holds the symbols -b .. b. Where -b or b stands, the rest of the number follows: how far it
lies beyond, in octal, lowest digit first, each with a bit that says whether another one follows.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

DIGITS = 4  # at most
LARGEST = 8**DIGITS - 1
FREQUENCIES = np.full(16, 4096)  # of the symbols 0 .. 15: an octal digit, plus 8 if another one follows


def split(symbols_N: NDArray[np.int64], bounds_N: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[int]]:
    """Symbols inside the bounds, and the digits of what lies beyond."""
    digits = []
    for rest in (np.abs(symbols_N) - bounds_N)[np.abs(symbols_N) >= bounds_N].tolist():
        while rest > 7:
            digits.append(8 + rest % 8)
            rest //= 8
        digits.append(rest)
    return symbols_N.clip(-bounds_N, bounds_N), digits


def join(symbols_N: NDArray[np.int64], bounds_N: NDArray[np.int64], digit: Callable[[], int]) -> None:
    """Add what lies beyond the bounds to the symbols, in place; `digit` reads the next one."""
    for place in np.flatnonzero(np.abs(symbols_N) == bounds_N):
        rest = 0
        for k in range(DIGITS):
            found = digit()
            rest += found % 8 << 3 * k
            if found < 8:
                break
        symbols_N[place] += rest if symbols_N[place] > 0 else -rest
