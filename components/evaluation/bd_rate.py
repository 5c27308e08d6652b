"""How many bits a method saves at equal score: Bjontegaard's delta, with rules for scores that wobble.

Scores of an MLLM over rate are not PSNR: they dip, tie and saturate, and akima and pchip then raise. The rules here
were fixed before any result was seen (docs/decisions.md): a curve is first made monotone by isotonic regression, points
that it pools become one point, and two curves that hardly share a range of scores have no BD-rate.

Shapes: R resamples, P points of a curve.
"""

import bjontegaard
import numpy as np
from scipy.optimize import isotonic_regression

from components.evaluation.pchip import integrals

SMALLEST_OVERLAP = 0.1  # of the anchor's own range
TOLERANCE = 1e-9
_PCHIP = {"method": "pchip", "require_matching_points": False, "min_overlap": 0}

Curve = tuple[np.ndarray, np.ndarray]
"""Rates in any unit, all positive, and scores: two arrays of one length, in any order."""

Curves = tuple[np.ndarray, np.ndarray]
"""Rates and scores of many resamples of one curve, (R, P) both. Where a curve has fewer points, NaN fills its end."""


def monotone(curves: Curves) -> Curves:
    """The rising curves nearest to the measured ones (least squares), by rising rate; pooled points still there."""
    rate_RP, score_RP = (np.asarray(values, float) for values in curves)
    order_RP = np.argsort(rate_RP, axis=1, kind="stable")
    rate_RP, score_RP = (np.take_along_axis(values, order_RP, 1) for values in (rate_RP, score_RP))
    for row in np.flatnonzero((np.diff(score_RP) < 0).any(1)):
        score_RP[row] = isotonic_regression(score_RP[row]).x
    return rate_RP, score_RP


def without_ties(curves: Curves) -> Curves:
    """Monotone curves with every run of equal scores replaced by one point, at the run's geometric mean rate."""
    rate_RP, score_RP = curves
    runs_RP = np.cumsum(np.diff(score_RP, axis=1, prepend=score_RP[:, :1]) > TOLERANCE, axis=1)
    resamples, points = runs_RP.shape
    bins = (runs_RP + points * np.arange(resamples)[:, None]).ravel()

    def sums(values_RP: np.ndarray) -> np.ndarray:
        return np.bincount(bins, values_RP.ravel(), minlength=bins.size).reshape(resamples, points)

    count_RP = sums(np.ones_like(rate_RP))
    with np.errstate(invalid="ignore"):  # 0 / 0 where no run is left
        return np.exp(sums(np.log(rate_RP)) / count_RP), sums(score_RP) / count_RP


def bd_rate(anchor: Curve, test: Curve) -> float:
    """Per cent of bits that `test` needs more than `anchor` at equal score; negative saves. NaN where not defined.

    The mean, over the shared range of scores, of the difference in log rate between pchip curves.
    """
    anchor, test = (without_ties(monotone(_one(curve))) for curve in (anchor, test))
    if not _overlap(anchor[1], test[1]):
        return float("nan")
    return float(bjontegaard.bd_rate(*_points(anchor), *_points(test), **_PCHIP))


def bd_score(anchor: Curve, test: Curve) -> float:
    """Points that `test` gains over `anchor` at equal rate, averaged over the shared range of log rate; or NaN."""
    anchor, test = (monotone(_one(curve)) for curve in (anchor, test))
    if not _overlap(np.log(anchor[0]), np.log(test[0])):
        return float("nan")
    return float(bjontegaard.bd_psnr(*_points(anchor), *_points(test), **_PCHIP))


def bd_rates(anchor: Curves, test: Curves) -> np.ndarray:
    """`bd_rate` of every resample, (R,), many times as fast; NaN too where a score is."""
    known_R = _known(anchor, test)
    anchor, test = (without_ties(monotone(curves)) for curves in (anchor, test))
    defined_R = known_R & _overlap(anchor[1], test[1])
    difference_R = _mean_differences(anchor[1], np.log10(anchor[0]), test[1], np.log10(test[0]))
    # One by one, as numpy's power of an array and of a number differ in the last bit.
    per_cent_R = np.array([(10**difference - 1) * 100 for difference in difference_R])
    return np.where(defined_R, per_cent_R, np.nan)


def bd_scores(anchor: Curves, test: Curves) -> np.ndarray:
    """`bd_score` of every resample, (R,), as `bd_rates`."""
    known_R = _known(anchor, test)
    anchor, test = monotone(anchor), monotone(test)
    defined_R = known_R & _overlap(np.log(anchor[0]), np.log(test[0]))
    difference_R = _mean_differences(np.log10(anchor[0]), anchor[1], np.log10(test[0]), test[1])
    return np.where(defined_R, difference_R, np.nan)


def _known(anchor: Curves, test: Curves) -> np.ndarray:
    """Whether all scores are numbers: bool (R,)."""
    return ~(np.isnan(anchor[1]).any(1) | np.isnan(test[1]).any(1))


def _overlap(anchor_RP: np.ndarray, test_RP: np.ndarray) -> np.ndarray:
    """Whether two rising sequences share a range wide enough to compare, and each has two points: bool (R,)."""
    low_R, high_R = _shared(anchor_RP, test_RP)
    wide_R = high_R - low_R > np.maximum(TOLERANCE, SMALLEST_OVERLAP * (np.nanmax(anchor_RP, 1) - anchor_RP[:, 0]))
    return wide_R & (_count(anchor_RP) > 1) & (_count(test_RP) > 1)


def _shared(anchor_RP: np.ndarray, test_RP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the range that two rising sequences share begins and ends, (R,) both."""
    low_R = np.maximum(anchor_RP[:, 0], test_RP[:, 0])
    return low_R, np.minimum(np.nanmax(anchor_RP, 1), np.nanmax(test_RP, 1))


def _mean_differences(x_anchor: np.ndarray, anchor: np.ndarray, x_test: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Mean over the shared range of the difference between pchip curves, (R,); as bjontegaard has it of one pair."""
    low_R, high_R = _shared(x_anchor, x_test)
    difference_R = integrals(x_test, test, low_R, high_R) - integrals(x_anchor, anchor, low_R, high_R)
    with np.errstate(invalid="ignore"):  # where they share one score
        return difference_R / (high_R - low_R)


def _count(values_RP: np.ndarray) -> np.ndarray:
    return (~np.isnan(values_RP)).sum(1)


def _one(curve: Curve) -> Curves:
    rate, score = (np.asarray(values, float)[None] for values in curve)
    return rate, score


def _points(curves: Curves) -> Curve:
    """The first resample's curve, without what fills its end."""
    there = ~np.isnan(curves[0][0])
    return curves[0][0][there], curves[1][0][there]
