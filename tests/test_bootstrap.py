"""Resampled images: the first row is the real set, intervals cover, failures are not swept away."""

import numpy as np

from components.evaluation.bootstrap import image_weights, interval


def test_first_row_is_the_real_set_and_every_draw_has_as_many_images():
    weights = image_weights(40, 200, seed=1)
    assert weights.shape == (201, 40)
    assert (weights[0] == 1).all()
    assert (weights.sum(1) == 40).all()
    assert np.array_equal(weights, image_weights(40, 200, seed=1))
    assert not np.array_equal(weights, image_weights(40, 200, seed=2))


def test_interval_of_a_mean_is_about_two_standard_errors():
    values = np.random.default_rng(0).normal(size=400)
    weights = image_weights(400, 2000, seed=3)
    low, high = interval(weights @ values / 400)
    error = values.std() / np.sqrt(400)
    assert abs((high - low) / (2 * 1.96 * error) - 1) < 0.1
    assert low < values.mean() < high


def test_pairing_makes_the_interval_of_a_difference_narrow():
    hard = np.random.default_rng(0).normal(size=200)
    weights = image_weights(200, 500, seed=4)
    low, high = interval(weights @ (hard + 0.5) / 200 - weights @ hard / 200)
    assert high - low < 1e-9


def test_few_failures_widen_the_interval_and_many_abolish_it():
    replicates = np.concatenate([[0.0], np.linspace(-1, 1, 1000)])
    whole = interval(replicates)
    replicates[1:21] = np.nan  # 2 %, all of them low values
    some = interval(replicates)
    assert some[0] <= whole[0] + 0.05
    assert some[1] > whole[1]
    replicates[1:40] = np.nan
    assert interval(replicates) is None


def test_the_real_set_is_not_a_replicate():
    assert interval(np.concatenate([[np.nan], np.linspace(0, 1, 100)])) is not None
    assert interval(np.array([1.0])) is None
