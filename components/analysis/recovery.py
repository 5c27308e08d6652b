"""C6 in numbers: where token similarity is lowest, in which stage, and whether it recovers towards the end."""

from typing import Any

import numpy as np

from components.analysis.stages import Stages
from components.evaluation.bootstrap import image_weights, interval


def recovery(similarity_IL: np.ndarray, stages: Stages | None, replicates: int, seed: int) -> dict[str, Any]:
    """What the curve of one setting says.

    Args:
        similarity_IL: of the states 0 to L (`Measured`), a row per image.
        stages: of the tower; None: not found.
        replicates: of the bootstrap over images.
        seed: of the resamples.

    Returns:
        `lowest_layer` (-1: the encoder's input) with its interval, `stage`, `lowest`, `last`, and `recovery`: the last
        layer's similarity less the lowest, with its interval; above zero only where the curve comes up again.
    """
    images = len(similarity_IL)
    means_RL = image_weights(images, replicates, seed) / images @ similarity_IL
    lowest_R = means_RL.argmin(-1) - 1
    # At the layer that is lowest over all images: the minimum of each resample would always be below its last layer.
    gain_R = means_RL[:, -1] - means_RL[:, lowest_R[0] + 1]
    layer = int(lowest_R[0])
    return {
        "lowest_layer": layer,
        "lowest_layer_interval": [int(end) for end in interval(lowest_R) or (layer, layer)],
        "stage": None if stages is None else stages.stage_of(layer),
        "lowest": float(means_RL[0].min()),
        "last": float(means_RL[0, -1]),
        "recovery": {"value": float(gain_R[0]), **_ends(gain_R)},
    }


def _ends(resamples: np.ndarray) -> dict[str, float]:
    low, high = interval(resamples) or (resamples[0], resamples[0])
    return {"low": float(low), "high": float(high)}
