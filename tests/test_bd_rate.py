"""BD-rate with scores that dip, tie and saturate: what the rules of docs/decisions.md give."""

import math

import bjontegaard
import numpy as np
import pytest

from components.evaluation.bd_rate import bd_rate, bd_rates, bd_score, bd_scores, monotone, without_ties

RATE = np.array([0.1, 0.2, 0.4, 0.8, 1.6])
SCORE = np.array([60.0, 72.0, 80.0, 84.0, 86.0])


def test_bits_halved_is_minus_fifty_per_cent():
    assert bd_rate((RATE, SCORE), (RATE / 2, SCORE)) == pytest.approx(-50)
    assert bd_rate((RATE / 2, SCORE), (RATE, SCORE)) == pytest.approx(100)


def test_a_curve_against_itself_is_zero():
    assert bd_rate((RATE, SCORE), (RATE, SCORE)) == pytest.approx(0)
    assert bd_score((RATE, SCORE), (RATE, SCORE)) == pytest.approx(0)


def test_two_points_more_is_a_bd_score_of_two():
    assert bd_score((RATE, SCORE), (RATE, SCORE + 2)) == pytest.approx(2)


def test_on_strictly_rising_curves_it_is_the_packages_number():
    other = SCORE + np.array([5.0, 3.0, 2.0, 1.0, 0.2])
    expected = bjontegaard.bd_rate(RATE, SCORE, RATE, other, method="pchip", min_overlap=0)
    assert bd_rate((RATE, SCORE), (RATE, other)) == pytest.approx(expected)


def test_order_of_points_does_not_matter():
    shuffled = np.array([3, 0, 4, 1, 2])
    other = (RATE * 0.7, SCORE + 1)
    assert bd_rate((RATE[shuffled], SCORE[shuffled]), other) == pytest.approx(bd_rate((RATE, SCORE), other))


def test_a_dip_is_pooled_into_one_point():
    curves = monotone((RATE[None], np.array([[60.0, 74.0, 72.0, 84.0, 86.0]])))
    assert curves[1].tolist() == [[60, 73, 73, 84, 86]]
    (rate,), (score,) = without_ties(curves)
    assert list(score[:4]) == pytest.approx([60, 73, 84, 86]) and math.isnan(score[4])
    assert rate[1] == pytest.approx(math.sqrt(0.2 * 0.4)) and math.isnan(rate[4])


def test_ties_and_dips_give_a_number_where_pchip_alone_raises():
    dipping = np.array([60.0, 74.0, 74.0, 86.0, 85.0])
    with pytest.raises(ValueError):
        bjontegaard.bd_rate(RATE, dipping, RATE, SCORE, method="pchip", min_overlap=0)
    assert math.isfinite(bd_rate((RATE, dipping), (RATE, SCORE)))
    assert math.isfinite(bd_score((RATE, dipping), (RATE, SCORE)))


def test_curves_that_share_no_range_have_no_bd_rate():
    assert math.isnan(bd_rate((RATE, SCORE), (RATE, SCORE + 40)))
    assert math.isnan(bd_score((RATE, SCORE), (RATE * 100, SCORE)))


def test_a_sliver_of_overlap_is_not_enough():
    test = SCORE + 26 - 2.5  # the anchor spans 26 points; they share 2.5
    assert math.isnan(bd_rate((RATE, SCORE), (RATE, test)))
    assert math.isfinite(bd_rate((RATE, SCORE), (RATE, test - 1)))


def test_a_falling_or_flat_curve_has_no_bd_rate():
    assert math.isnan(bd_rate((RATE, SCORE), (RATE, SCORE[::-1])))
    assert math.isnan(bd_rate((RATE, np.full(5, 80.0)), (RATE, SCORE)))


def _wobbling_curves(points: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """500 resamples of curves with dips, ties, a few that fall or lie elsewhere, and a few scores that are missing."""
    rate = np.geomspace(0.05, 2, points) * rng.uniform(0.9, 1.1, (500, points))
    score = 60 + 8 * np.log2(rate / 0.05) + rng.normal(0, 6, (500, points)).round(0)
    score[::50] -= 45
    score[::97, 1] = np.nan
    return rate, score


def test_resamples_together_are_the_resamples_one_by_one():
    rng = np.random.default_rng(0)
    anchor, test = _wobbling_curves(6, rng), _wobbling_curves(7, rng)
    known = ~(np.isnan(anchor[1]).any(1) | np.isnan(test[1]).any(1))
    for together, single in ((bd_rates, bd_rate), (bd_scores, bd_score)):
        found = together(anchor, test)
        expected = [
            single((anchor_rate, anchor_score), (test_rate, test_score)) if there else np.nan
            for anchor_rate, anchor_score, test_rate, test_score, there in zip(*anchor, *test, known, strict=True)
        ]
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-9)
        assert 5 < np.isnan(found).sum() < 100
