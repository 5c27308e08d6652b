"""Rate-score curves: what each method needs in bits and what the MLLM then scores, for every resample of the images.

The rate is the size of the real files, header and all, in bits per pixel; the rate without the header stands beside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from components.evaluation.bd_rate import Curves
from components.evaluation.scores import Scores
from components.evaluation.streams import Setting


@dataclass(frozen=True)
class Curve:
    """One method by rising quality. Shapes: R resamples (row 0 is the real set), P qualities.

    Attributes:
        qualities: of the P points.
        bpp_RP, bare_RP: bits per pixel with and without the header.
        scores: benchmark or "mean", or level -> (R, P) in per cent.
    """

    qualities: list[str]
    bpp_RP: np.ndarray
    bare_RP: np.ndarray
    scores: dict[str, np.ndarray]

    def on(self, name: str) -> Curves:
        """Rates and scores on one benchmark, as `bd_rate.py` compares them."""
        return self.bpp_RP, self.scores[name]


def rate_score_curve(
    method: str,
    files: Mapping[str, Any],
    pixels_I: np.ndarray,
    weights_RI: np.ndarray,
    scores: Scores,
    results: Mapping[str, np.ndarray],
) -> Curve:
    """Join a method's files with its scores.

    Args:
        method: name of the method.
        files: `styles.<style>.methods.<method>` of rates.json: quality -> {"bits", "header_bits"}, a number per image.
        pixels_I: of each image, in the order of the weights' columns.
        weights_RI: how often each image counts.
        scores: where the columns of `results` are named.
        results: benchmark -> (R, S) in per cent, from `Scores.benchmarks` or `Scores.levels`.
    """
    qualities = [quality for quality in files if Setting(method, quality) in scores.settings]
    columns = [scores.settings.index(Setting(method, quality)) for quality in qualities]
    bits_PI = np.array([files[quality]["bits"] for quality in qualities], float)
    header_PI = np.array([files[quality]["header_bits"] for quality in qualities], float)
    pixels_R = weights_RI @ pixels_I
    return Curve(
        qualities=qualities,
        bpp_RP=(weights_RI @ bits_PI.T) / pixels_R[:, None],
        bare_RP=(weights_RI @ (bits_PI - header_PI).T) / pixels_R[:, None],
        scores={name: values_RS[:, columns] for name, values_RS in results.items()},
    )
