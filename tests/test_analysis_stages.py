"""Stages found from curves, recovery of similarity, and rank correlations: answers known beforehand."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from components.analysis.levels import correlations
from components.analysis.map_figures import four_layers
from components.analysis.recovery import recovery
from components.analysis.stages import SHAPES, boundaries, find_stages
from components.errors import CotamError


def u_curve(layers: int = 12, second: int = 4, third: int = 9) -> np.ndarray:
    """Lines that fall, stay and rise, with jumps between them."""
    layer = np.arange(layers, dtype=float)
    rising = 6 + 0.5 * (layer - third)
    return np.where(layer < second, 8 - 0.5 * layer, np.where(layer < third, 2.0 + 0.1 * layer, rising))


@pytest.mark.parametrize(("layers", "second", "third"), [(12, 4, 9), (24, 6, 17), (9, 3, 6), (10, 3, 7)])
def test_the_cut_is_found(layers, second, third):
    curve = u_curve(layers, second, third)
    assert boundaries(np.stack([curve, -3 * curve + 1])[None]).tolist() == [[second, third]]


def test_a_curve_that_says_nothing_does_not_decide():
    curves = np.stack([u_curve(), np.full(12, 0.1)])
    assert boundaries(curves[None]).tolist() == [[4, 9]]


def test_it_is_the_best_of_all_cuts():
    curves = np.random.default_rng(3).normal(size=(5, 2, 11))
    scaled = (curves - curves.mean(-1, keepdims=True)) / curves.std(-1, keepdims=True)

    def misfit(run):
        place = np.arange(len(run))
        return np.square(run - np.polyval(np.polyfit(place, run, 1), place)).sum()

    for row, found in zip(scaled, boundaries(curves), strict=True):
        sums = {
            (a, b): sum(misfit(part) for curve in row for part in (curve[:a], curve[a:b], curve[b:]))
            for a in range(3, 6)
            for b in range(a + 3, 9)
        }
        assert tuple(found) == min(sums, key=sums.get)


def test_a_short_tower_has_no_stages():
    with pytest.raises(CotamError, match="too short"):
        boundaries(np.ones((1, 2, 8)))


def test_stages_come_with_how_sure_they_are():
    rng = np.random.default_rng(5)
    values = {name: u_curve() + rng.normal(size=(40, 12)) for name in SHAPES}
    stages = find_stages(values, replicates=200, seed=1)
    assert stages.boundaries == (4, 9)
    assert [list(run) for run in stages.runs] == [[0, 1, 2, 3], [4, 5, 6, 7, 8], [9, 10, 11]]
    assert [stages.stage_of(layer) for layer in (0, 3, 4, 8, 9, 11)] == [1, 1, 2, 2, 3, 3]
    assert stages.agreement > 0.9
    assert stages.u_shaped("d_avg") is True
    told = stages.to_json()
    assert told["stages"] == [[0, 3], [4, 8], [9, 11]]
    assert told["u_shaped"] == dict.fromkeys(SHAPES, True)
    noise = {name: rng.normal(size=(6, 12)) for name in SHAPES}
    unsure = find_stages(noise, replicates=200, seed=1)
    assert unsure.agreement < 0.9
    assert any(high > low for low, high in unsure.intervals)


def test_what_falls_all_the_way_is_no_u():
    falling = {name: np.tile(-np.arange(12.0), (4, 1)) for name in SHAPES}
    assert find_stages(falling, replicates=50, seed=1).u_shaped("d_avg") is False


def test_recovery():
    curve = np.array([1.0, 0.9, 0.8, 0.5, 0.7])
    images = curve + np.random.default_rng(1).normal(scale=0.01, size=(30, 5))
    found = recovery(images, None, replicates=100, seed=1)
    assert found["lowest_layer"] == 2  # the state after layer 2
    assert found["lowest_layer_interval"] == [2, 2]
    assert found["recovery"]["value"] == pytest.approx(0.2, abs=0.01)
    assert 0.15 < found["recovery"]["low"] < found["recovery"]["high"] < 0.25
    falling = recovery(np.tile([1.0, 0.9, 0.8], (3, 1)), None, replicates=10, seed=1)
    assert falling["recovery"] == {"value": 0, "low": 0, "high": 0}


def test_correlations_are_spearmans():
    rng = np.random.default_rng(6)
    similarity, loss, bpp = rng.random((11, 8, 3)), rng.integers(0, 5, (11, 8)), rng.random((11, 8))
    found = correlations(similarity, loss, bpp)
    expected = [spearmanr(similarity[0, :, layer], loss[0]).statistic for layer in range(3)]
    assert found["rho"]["value"] == pytest.approx(expected)
    assert found["best"]["layer"] == int(np.argmin(expected)) - 1
    of_rate = [spearmanr(similarity[0, :, layer], bpp[0]).statistic for layer in range(3)]
    both = spearmanr(loss[0], bpp[0]).statistic
    for layer in range(3):
        rest = np.sqrt((1 - of_rate[layer] ** 2) * (1 - both**2))
        assert found["partial"]["value"][layer] == pytest.approx((expected[layer] - of_rate[layer] * both) / rest)


def test_a_correlation_with_what_never_changes_is_not_defined():
    similarity, bpp = np.random.default_rng(7).random((5, 6, 2)), np.tile(np.arange(6.0), (5, 1))
    found = correlations(similarity, np.zeros((5, 6)), bpp)
    assert found["rho"] == {"value": [None, None], "low": [None, None], "high": [None, None]}


def test_figure_4_shows_four_layers_of_a_deep_tower_too():
    assert four_layers(24, None) == [0, 6, 15, 22]


def test_a_level_that_loses_nothing_has_no_layer():
    rng = np.random.default_rng(0)
    similarity_RSL, bpp_RS = rng.random((50, 6, 4)), rng.random((50, 6))
    found = correlations(similarity_RSL, np.zeros((50, 6)), bpp_RS)
    assert found["best"] is None
    assert found["rho"]["value"] == [None] * 4
