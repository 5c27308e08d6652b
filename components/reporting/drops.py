"""What compression costs against clean images (paper, Fig. 1): per level over rate, per kind of task at equal rates.

Shapes: R resamples, P points of a curve.
"""

from dataclasses import asdict
from typing import Any

import numpy as np

from components.evaluation.scores import LEVELS
from components.evaluation.variant_results import Estimate, Ground, Measured, Results, over_seeds

ALONE = "codec alone"
COMPARED = ("bridge-d1", "full")
"""The variants that Fig. 1ab has beside the codec alone."""


def level_drops(ground: Ground) -> dict[str, list[dict[str, Any]]]:
    """Points that the codec alone loses: level -> a point per quality by rising rate, `bpp`, `value`, `low`, `high`."""
    curve, found = ground.anchor.levels, {}
    for level in LEVELS:
        if level in ground.clean:
            drops_RP = ground.clean[level][:, None] - curve.scores[level]
            found[level] = [
                {"bpp": float(curve.bpp_RP[0, place]), **asdict(Estimate.of(drops_RP[:, place]))}
                for place in np.argsort(curve.bpp_RP[0], kind="stable")
            ]
    return found


def task_drops(results: Results) -> dict[str, Any] | None:
    """Points lost in each of MMBench's categories, by the codec alone and by `COMPARED`, at the same rates.

    Returns:
        `bpp`: the codec's rates that all of them reach, over which the points are averaged; `methods`: name -> category
        -> `value`, `low`, `high`. None where nothing can be compared.
    """
    named = [name for name in COMPARED if name in results.runs]
    grounds = {id(ground): ground for name in named if (ground := results.ground(name)) is not None}
    if len(grounds) != 1:
        return None
    [ground] = grounds.values()
    runs = {ALONE: [ground.anchor]} | {name: list(results.runs[name].values()) for name in named}
    ends = [one.benchmarks.bpp_RP[0] for measured in runs.values() for one in measured]
    low, high = max(rate_P.min() for rate_P in ends), min(rate_P.max() for rate_P in ends)
    at = np.sort(ground.anchor.benchmarks.bpp_RP[0])
    at = at[(at >= low) & (at <= high)]
    if not len(at):
        return None
    known = [category for category in ground.anchor.categories if category in ground.clean]

    def lost(measured: list[Measured], category: str) -> dict[str, float | None]:
        each_SR = np.stack([_lost(one, ground, category, at) for one in measured])
        return asdict(Estimate.of(over_seeds(each_SR, results.seed)))

    methods = {name: {category: lost(runs[name], category) for category in known} for name in runs}
    return {"bpp": at.tolist(), "methods": methods}


def _lost(one: Measured, ground: Ground, category: str, at: np.ndarray) -> np.ndarray:
    """Points lost in a category, averaged over the rates `at`; between its own rates a score is linear in their log."""
    rates_RP, scores_RP = np.log(one.benchmarks.bpp_RP), one.categories[category]
    order_RP = np.argsort(rates_RP, axis=1, kind="stable")
    pairs = zip(np.take_along_axis(rates_RP, order_RP, 1), np.take_along_axis(scores_RP, order_RP, 1), strict=True)
    return ground.clean[category] - np.array([np.interp(np.log(at), *pair).mean() for pair in pairs])
