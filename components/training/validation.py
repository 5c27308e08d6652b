"""What a method does on the held-out images, per base quality, beside what the main codec's pictures alone would do."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

VALIDATION_BATCH = 64
BEFORE = "_unadapted"

Measure = Callable[[dict[str, Tensor]], dict[str, Tensor]]
"""A batch -> named scalars, means over its images; NAME_unadapted is NAME without the method."""


class HeldOut(Protocol):
    """What is measured on (`components.training.feature_store.FeatureStore`)."""

    def held_out(self, quality: int, size: int) -> Iterator[dict[str, Tensor]]: ...


@torch.no_grad()
def validate_by_quality(
    views: HeldOut, qualities: Sequence[int], measure: Measure, device: torch.device
) -> dict[str, dict[str, float]]:
    """{quality: {name: mean, ..., NAME_ratio: with the method / without it}}."""
    measured = {}
    for quality in qualities:
        sums: dict[str, float] = {}
        count = 0
        for batch in views.held_out(quality, VALIDATION_BATCH):
            number = len(batch["patches"])
            for name, value in measure({name: tensor.to(device) for name, tensor in batch.items()}).items():
                sums[name] = sums.get(name, 0.0) + number * float(value)
            count += number
        means = {name: value / count for name, value in sums.items()}
        for name in [name for name in means if f"{name}{BEFORE}" in means]:
            means[f"{name}_ratio"] = means[name] / max(means[f"{name}{BEFORE}"], 1e-12)
        measured[str(quality)] = means
    return measured
