"""How many bits a method saves at equal score: Bjontegaard's delta, with rules for scores that wobble.

Scores of an MLLM over rate are not PSNR: they dip, tie and saturate, and akima and pchip then raise. The rules here
were fixed before any result was seen (docs/decisions.md): a curve is first made monotone by isotonic regression, points
that it pools become one point, and two curves that hardly share a range of scores have no BD-rate.
"""

import bjontegaard
import numpy as np
from scipy.optimize import isotonic_regression

SMALLEST_OVERLAP = 0.1  # of the anchor's own range
TOLERANCE = 1e-9
_PCHIP = {"method": "pchip", "require_matching_points": False, "min_overlap": 0}

Curve = tuple[np.ndarray, np.ndarray]
"""Rates in any unit, all positive, and scores: two arrays of one length, in any order."""


def monotone(curve: Curve) -> Curve:
    """The rising curve nearest to the measured one (least squares), by rising rate; pooled points still there."""
    rate, score = (np.asarray(values, float) for values in curve)
    order = np.argsort(rate, kind="stable")
    return rate[order], isotonic_regression(score[order]).x


def without_ties(curve: Curve) -> Curve:
    """A monotone curve with every run of equal scores replaced by one point, at the run's geometric mean rate."""
    rate, score = curve
    run = np.concatenate([[0], np.cumsum(np.diff(score) > TOLERANCE)])
    count = np.bincount(run)
    return np.exp(np.bincount(run, np.log(rate)) / count), np.bincount(run, score) / count


def bd_rate(anchor: Curve, test: Curve) -> float:
    """Per cent of bits that `test` needs more than `anchor` at equal score; negative saves. NaN where not defined.

    The mean, over the shared range of scores, of the difference in log rate between pchip curves.
    """
    anchor, test = without_ties(monotone(anchor)), without_ties(monotone(test))
    if not _overlap(anchor[1], test[1]):
        return float("nan")
    return float(bjontegaard.bd_rate(*anchor, *test, **_PCHIP))


def bd_score(anchor: Curve, test: Curve) -> float:
    """Points that `test` gains over `anchor` at equal rate, averaged over the shared range of log rate; or NaN."""
    anchor, test = monotone(anchor), monotone(test)
    if not _overlap(np.log(anchor[0]), np.log(test[0])):
        return float("nan")
    return float(bjontegaard.bd_psnr(*anchor, *test, **_PCHIP))


def _overlap(anchor: np.ndarray, test: np.ndarray) -> bool:
    """Whether two rising sequences share a range wide enough to compare, and each has two points."""
    if min(len(anchor), len(test)) < 2:
        return False
    shared = min(anchor[-1], test[-1]) - max(anchor[0], test[0])
    return shared > max(TOLERANCE, SMALLEST_OVERLAP * (anchor[-1] - anchor[0]))
