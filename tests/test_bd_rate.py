"""BD-rate with scores that dip, tie and saturate: what the rules of docs/decisions.md give."""

import math

import bjontegaard
import numpy as np
import pytest

from components.evaluation.bd_rate import bd_rate, bd_score, monotone, without_ties

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
    rate, score = monotone((RATE, np.array([60.0, 74.0, 72.0, 84.0, 86.0])))
    assert list(score) == [60, 73, 73, 84, 86]
    rate, score = without_ties((rate, score))
    assert list(score) == pytest.approx([60, 73, 84, 86])
    assert rate[1] == pytest.approx(math.sqrt(0.2 * 0.4))


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
