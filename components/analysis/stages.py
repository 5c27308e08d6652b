"""Where one stage of a tower ends and the next begins, found from its curves, and how sure that is.

The rule: the layers are cut into three runs, and each run of a curve is fitted by a line of its own, in least squares.
Of all cuts the one with the smallest sum of squared residuals counts, over the curves D_avg and D_top1, each divided by
its own standard deviation over layers. A run has at least three layers, because a line fits two of anything.

How sure: the images are drawn again with replacement and the rule is applied to each resample's mean curves.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from components.errors import CotamError
from components.evaluation.bootstrap import image_weights, interval

STAGES = 3
SHORTEST = 3
CURVES = ("d_avg", "d_top1")
SHAPES = (*CURVES, "d_avg_patches")
"""Curves of which it is said whether they are U-shaped. The last takes no part in the rule."""


@dataclass(frozen=True)
class Stages:
    """The stages of a tower.

    Attributes:
        layers: L.
        boundaries: first layer of stage 2, and of stage 3.
        intervals: 95 % of the resamples have each boundary here, both ends included.
        agreement: share of the resamples with exactly these boundaries.
        drops: by curve: mean of stage 1 less that of stage 2, and of stage 3 less that of stage 2, each with its
            interval; both above zero is the paper's U.
    """

    layers: int
    boundaries: tuple[int, int]
    intervals: tuple[tuple[int, int], tuple[int, int]]
    agreement: float
    drops: dict[str, dict[str, dict[str, float]]]

    @property
    def runs(self) -> list[range]:
        """The layers of each stage."""
        ends = (0, *self.boundaries, self.layers)
        return [range(first, last) for first, last in pairwise(ends)]

    def stage_of(self, layer: int) -> int:
        """1, 2 or 3."""
        return 1 + sum(layer >= boundary for boundary in self.boundaries)

    def u_shaped(self, curve: str) -> bool | None:
        """Whether a curve is lower in stage 2 than in 1 and in 3; None where the intervals leave it open."""
        ends = self.drops[curve].values()
        if all(end["low"] > 0 for end in ends):
            return True
        return False if any(end["high"] < 0 for end in ends) else None

    def to_json(self) -> dict[str, Any]:
        """For stages.json. Layers count from 0."""
        return {
            "rule": f"three least-squares lines over {' and '.join(CURVES)}, at least {SHORTEST} layers each",
            "layers": self.layers,
            "boundaries": list(self.boundaries),
            "intervals": [list(ends) for ends in self.intervals],
            "agreement": self.agreement,
            "stages": [[run.start, run.stop - 1] for run in self.runs],
            "drops": self.drops,
            "u_shaped": {curve: self.u_shaped(curve) for curve in self.drops},
        }


def boundaries(curves_RCL: np.ndarray) -> np.ndarray:
    """The rule, on each of R sets of C curves over L layers: first layers of stage 2 and of stage 3, (R, 2).

    A curve that is the same in every layer says nothing. Of cuts that fit alike the first counts.

    Raises:
        CotamError: there are too few layers.
    """
    layers = curves_RCL.shape[-1]
    if layers < STAGES * SHORTEST:
        raise CotamError(
            f"A tower of {layers} layers is too short to find {STAGES} stages in; take one with at least "
            f"{STAGES * SHORTEST}."
        )
    spread_RC1 = curves_RCL.std(-1, keepdims=True)
    scaled_RCL = np.where(spread_RC1 > 1e-12, (curves_RCL - curves_RCL.mean(-1, keepdims=True)), 0) / np.maximum(
        spread_RC1, 1e-12
    )
    misfit = {
        (first, last): _misfit(scaled_RCL[..., first:last])
        for first, last in combinations(range(layers + 1), 2)
        if last - first >= SHORTEST
    }
    cuts = [
        (second, third)
        for second, third in combinations(range(SHORTEST, layers - SHORTEST + 1), 2)
        if third - second >= SHORTEST
    ]
    sums = np.stack([misfit[0, a] + misfit[a, b] + misfit[b, layers] for a, b in cuts])
    return np.array(cuts)[np.round(sums, 9).argmin(0)]


def _misfit(runs_RCl: np.ndarray) -> np.ndarray:
    """Squared residuals of the best line, summed over the curves: (R,)."""
    length = runs_RCl.shape[-1]
    place = np.arange(length) - (length - 1) / 2
    centred = runs_RCl - runs_RCl.mean(-1, keepdims=True)
    slope = (centred @ place) / (place @ place)
    return np.square(centred - slope[..., None] * place).sum((-1, -2))


def find_stages(values: Mapping[str, np.ndarray], replicates: int, seed: int) -> Stages:
    """Find the stages of a tower.

    Args:
        values: of the raw images, by curve: (I, L), a number per image and layer; `SHAPES` at least.
        replicates: resamples.
        seed: of the resamples.

    Raises:
        CotamError: the tower has too few layers.
    """
    curves_CIL = np.stack([values[name] for name in SHAPES])
    images, layers = curves_CIL.shape[1:]
    weights_RI = image_weights(images, replicates, seed) / images
    means_RCL = np.einsum("ri,cil->rcl", weights_RI, curves_CIL)
    cuts_R2 = boundaries(means_RCL[:, : len(CURVES)])
    chosen = cuts_R2[0]
    ends = [tuple(int(end) for end in _whole_interval(cuts_R2[:, place])) for place in range(2)]
    drops = {}
    for place, name in enumerate(SHAPES):
        first, second, third = (
            means_RCL[:, place, run].mean(-1)
            for run in (slice(0, chosen[0]), slice(chosen[0], chosen[1]), slice(chosen[1], layers))
        )
        drops[name] = {"stage_1": _with_interval(first - second), "stage_3": _with_interval(third - second)}
    return Stages(
        layers=layers,
        boundaries=(int(chosen[0]), int(chosen[1])),
        intervals=(ends[0], ends[1]),
        agreement=float((cuts_R2[1:] == chosen).all(-1).mean()) if replicates else 1.0,
        drops=drops,
    )


def _whole_interval(resamples: np.ndarray) -> tuple[float, float]:
    ends = interval(resamples)
    return ends if ends else (resamples[0], resamples[0])


def _with_interval(resamples: np.ndarray) -> dict[str, float]:
    low, high = _whole_interval(resamples)
    return {"value": float(resamples[0]), "low": float(low), "high": float(high)}
