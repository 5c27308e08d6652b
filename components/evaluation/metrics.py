"""One line per number of an evaluation: what `dvc metrics` shows and MLflow compares, without intervals."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from components.evaluation.bd_rate import bd_rate
from components.evaluation.benchmarks import BENCHMARKS
from components.evaluation.scores import CLIP_COLUMNS, COLUMNS, Scores
from components.evaluation.streams import CLEAN, Setting


@dataclass(frozen=True)
class Point:
    """What one setting scored, in per cent per benchmark and level, and its rate in bits per pixel (None for clean)."""

    setting: Setting
    bpp: float | None
    scores: dict[str, float]


def points_of(style: Mapping[str, Any], benchmarks: Sequence[str] = BENCHMARKS) -> list[Point]:
    """The points of one style of scores.json (docs/summary-schema.md), in which these benchmarks were asked."""
    scores = Scores.from_json(style)
    images = sorted({question["image"] for question in style["questions"]})
    once = np.ones((1, len(images)))
    found = scores.benchmarks(images, once, benchmarks) | scores.levels(images, once)
    plus = scores.accuracy_plus()
    points = []
    for column, setting in enumerate(scores.settings):
        values = {name: float(values_RS[0, column]) for name, values_RS in found.items()}
        bits = style["bits"].get(setting.method, {}).get(setting.quality)
        bpp = None if bits is None else bits / style["pixels"]
        if plus:
            values["mme_accuracy_plus"] = plus[setting]
        points.append(Point(setting, bpp, values))
    return points


def flat_metrics(codec: str, points: list[Point], columns: Sequence[str] = COLUMNS) -> dict[str, float]:
    """What is defined of `score.METHOD.QUALITY.BENCHMARK`, `bpp.METHOD.QUALITY` and `bd_rate.METHOD.BENCHMARK`."""
    found: dict[str, float] = {}
    for point in points:
        name = point.setting.method if point.setting == CLEAN else f"{point.setting.method}.{point.setting.quality}"
        found |= {f"score.{name}.{column}": value for column, value in point.scores.items()}
        if point.bpp is not None:
            found[f"bpp.{name}"] = point.bpp
    methods = dict.fromkeys(point.setting.method for point in points if point.setting != CLEAN)
    for method in methods:
        if method != codec:
            values = _bd_rates(points, codec, method, columns)
            found |= {f"bd_rate.{method}.{column}": value for column, value in values}
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _bd_rates(points: list[Point], anchor: str, test: str, columns: Sequence[str]) -> Iterator[tuple[str, float]]:
    def curve(method: str, column: str) -> tuple[np.ndarray, np.ndarray]:
        chosen = [point for point in points if point.setting.method == method]
        return np.array([point.bpp for point in chosen]), np.array([point.scores[column] for point in chosen])

    for column in columns:
        curves = curve(anchor, column), curve(test, column)
        if all(np.isfinite(score).all() for _, score in curves):
            yield column, bd_rate(*curves)


def clip_metrics(codec: str, points: list[Point]) -> dict[str, float]:
    """`flat_metrics` of the clips' points, as `clips.score.METHOD.QUALITY.videomme` and so on."""
    return {f"clips.{name}": value for name, value in flat_metrics(codec, points, CLIP_COLUMNS).items()}
