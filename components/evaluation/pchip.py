"""Integrals of thousands of small pchip interpolants at once.

scipy's PchipInterpolator and its `integrate` take half a millisecond for a curve of six points, and a bootstrap has
tens of thousands. Here the same operations, in the same order, run over all curves together (a test compares them).

Shapes: R curves, P points, whose last axis runs along the curve.
"""

import numpy as np


def integrals(x_RP: np.ndarray, y_RP: np.ndarray, low_R: np.ndarray, high_R: np.ndarray) -> np.ndarray:
    """Integral of each curve's interpolant from `low_R` to `high_R`, which lie within its points: (R,).

    Args:
        x_RP: strictly rising; a curve with fewer points has NaN at its end.
        y_RP: values there.
        low_R, high_R: ends of the integral.
    """
    points_R = np.isfinite(x_RP).sum(1)
    found_R = np.full(len(x_RP), np.nan)
    for points in np.unique(points_R[points_R > 1]):
        rows = points_R == points
        found_R[rows] = _integrals(x_RP[rows, :points], y_RP[rows, :points], low_R[rows, None], high_R[rows, None])
    return found_R


def _integrals(x_RP: np.ndarray, y_RP: np.ndarray, low_R1: np.ndarray, high_R1: np.ndarray) -> np.ndarray:
    step_RI, slope_RI = np.diff(x_RP), np.diff(y_RP) / np.diff(x_RP)  # I = P - 1 intervals
    tangent_RP = _tangents(step_RI, slope_RI)
    left_RI, right_RI = tangent_RP[:, :-1], tangent_RP[:, 1:]
    bend_RI = (left_RI + right_RI - 2 * slope_RI) / step_RI
    cubic = (y_RP[:, :-1], left_RI, (slope_RI - left_RI) / step_RI - bend_RI, bend_RI / step_RI)

    def antiderivative(end_R1: np.ndarray) -> np.ndarray:
        within_RI = np.clip(end_R1, x_RP[:, :-1], x_RP[:, 1:]) - x_RP[:, :-1]
        power_RI, total_RI = within_RI, 0.0
        for degree, coefficient_RI in enumerate(cubic, 1):
            total_RI = total_RI + coefficient_RI * power_RI * (1 / degree)
            power_RI = power_RI * within_RI
        return total_RI

    parts_RI = antiderivative(high_R1) - antiderivative(low_R1)
    return sum(parts_RI.T, np.zeros(len(x_RP)))  # from left to right; np.sum would pair them


def _tangents(step_RI: np.ndarray, slope_RI: np.ndarray) -> np.ndarray:
    """The interpolant's slope at every point (Fritsch and Butland 1984; at the ends Moler's three-point rule)."""
    if slope_RI.shape[1] == 1:
        return slope_RI.repeat(2, axis=1)
    before_RI, after_RI = slope_RI[:, :-1], slope_RI[:, 1:]
    weight_before, weight_after = 2 * step_RI[:, 1:] + step_RI[:, :-1], step_RI[:, 1:] + 2 * step_RI[:, :-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        harmonic = 1 / ((weight_before / before_RI + weight_after / after_RI) / (weight_before + weight_after))
    inner = np.where(before_RI * after_RI > 0, harmonic, 0.0)
    first = _end_tangent(step_RI[:, 0], step_RI[:, 1], slope_RI[:, 0], slope_RI[:, 1])
    last = _end_tangent(step_RI[:, -1], step_RI[:, -2], slope_RI[:, -1], slope_RI[:, -2])
    return np.column_stack([first, inner, last])


def _end_tangent(step: np.ndarray, next_step: np.ndarray, slope: np.ndarray, next_slope: np.ndarray) -> np.ndarray:
    tangent = ((2 * step + next_step) * slope - step * next_slope) / (step + next_step)
    steep = (np.sign(slope) != np.sign(next_slope)) & (np.abs(tangent) > 3 * np.abs(slope))
    return np.where(np.sign(tangent) != np.sign(slope), 0.0, np.where(steep, 3 * slope, tangent))
