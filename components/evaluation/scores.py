"""Scores of single questions, and how they add up to scores of benchmarks and levels.

A benchmark's score is lmms-eval's, in per cent of the best possible: accuracy, or for MME the mean over its categories
of accuracy and accuracy+ (docs/decisions.md). All of these are ratios of sums over images. So a resample of the images
is a vector of weights, and thousands of resamples are one matrix product.

Shapes: I images, Q questions, S settings (method and quality), R resamples.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from components.evaluation.benchmarks import BENCHMARKS
from components.evaluation.streams import CLIP_BENCHMARK, Setting

LEVELS = ("low", "high", "cross")
MEAN = "mean"
COLUMNS = (MEAN, *BENCHMARKS)
"""What `Scores.benchmarks` gives, as tables have it: the mean first."""
CLIP_COLUMNS = (CLIP_BENCHMARK,)
"""The same of clips, which have one benchmark."""


@dataclass(frozen=True)
class Scores:
    """What every setting scored on the same questions.

    Attributes:
        questions: `{"benchmark", "id", "image", "level", "family", "category", "pair"}` each.
        settings: the columns of `values_QS`.
        values_QS: 0 (wrong) to 1 (right), float64.
    """

    questions: list[dict[str, Any]]
    settings: list[Setting]
    values_QS: np.ndarray

    @classmethod
    def from_json(cls, style: Mapping[str, Any]) -> "Scores":
        """Read `styles.<style>` of scores.json (docs/summary-schema.md)."""
        columns = {
            Setting(method, quality): values
            for method, qualities in style["scores"].items()
            for quality, values in qualities.items()
        }
        return cls(style["questions"], list(columns), np.array(list(columns.values()), float).T)

    def benchmarks(
        self, images: list[str], weights_RI: np.ndarray, names: Sequence[str] = BENCHMARKS
    ) -> dict[str, np.ndarray]:
        """Per cent for every benchmark and their unweighted mean: name -> (R, S). NaN where nothing is asked."""
        values_QS = self.values_QS.copy()
        for rows in self._pairs():
            # The mean of accuracy and accuracy+: a right answer counts half, and in full when the pair is right.
            values_QS[rows] = (values_QS[rows] + values_QS[rows].min(0)) / 2
        cells = [
            (question["benchmark"], question["category"] if question["pair"] else "") for question in self.questions
        ]
        means = self._cell_means(cells, values_QS, images, weights_RI)
        scores = {}
        for name in names:
            of_categories = [mean_RS for (benchmark, _), mean_RS in means.items() if benchmark == name]
            scores[name] = 100 * _mean(of_categories, (len(weights_RI), len(self.settings)))
        return scores | {MEAN: np.mean([scores[name] for name in names], axis=0)}

    def levels(self, images: list[str], weights_RI: np.ndarray) -> dict[str, np.ndarray]:
        """Right answers in per cent over all questions of a level, whatever the benchmark: level -> (R, S)."""
        cells = [question["level"] for question in self.questions]
        means = self._cell_means(cells, self.values_QS, images, weights_RI)
        shape = (len(weights_RI), len(self.settings))
        return {level: 100 * _mean([means[level]] if level in means else [], shape) for level in LEVELS}

    def categories(self, benchmark: str, images: list[str], weights_RI: np.ndarray) -> dict[str, np.ndarray]:
        """Right answers in per cent in each category of one benchmark: category -> (R, S)."""
        cells = [question["category"] if question["benchmark"] == benchmark else None for question in self.questions]
        means = self._cell_means(cells, self.values_QS, images, weights_RI)
        return {category: 100 * mean_RS for category, mean_RS in means.items() if category is not None}

    def accuracy_plus(self) -> dict[Setting, float]:
        """MME's accuracy+ in per cent: both questions of a pair right. Empty where MME was not asked."""
        if not self._pairs():
            return {}
        right = np.array([self.values_QS[rows].min(0) for rows in self._pairs()])
        return dict(zip(self.settings, 100 * right.mean(0), strict=True))

    def _pairs(self) -> list[list[int]]:
        """Rows of the questions that belong together in MME."""
        pairs: dict[str, list[int]] = {}
        for row, question in enumerate(self.questions):
            if question["pair"] is not None:
                pairs.setdefault(question["pair"], []).append(row)
        return list(pairs.values())

    def _cell_means(
        self, cells: list[Any], values_QS: np.ndarray, images: list[str], weights_RI: np.ndarray
    ) -> dict[Any, np.ndarray]:
        """Weighted mean of the values in each cell: cell -> (R, S)."""
        place = {image: index for index, image in enumerate(images)}
        rows = np.array([place[question["image"]] for question in self.questions])
        means = {}
        for cell in dict.fromkeys(cells):
            chosen = np.array([other == cell for other in cells])
            sums_IS, counts_I = np.zeros((len(images), len(self.settings))), np.zeros(len(images))
            np.add.at(sums_IS, rows[chosen], values_QS[chosen])
            np.add.at(counts_I, rows[chosen], 1)
            with np.errstate(invalid="ignore"):
                means[cell] = (weights_RI @ sums_IS) / (weights_RI @ counts_I)[:, None]
        return means


def _mean(cells: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Mean over cells, of those that a resample has any questions in; NaN where it has none."""
    if not cells:
        return np.full(shape, np.nan)
    stacked = np.stack(cells)
    there = ~np.isnan(stacked)
    with np.errstate(invalid="ignore"):
        return np.where(there, stacked, 0).sum(0) / there.sum(0)


def question_rows(asked: Iterable[Any]) -> tuple[list[dict[str, Any]], list[float]]:
    """Questions and their scores, from `suite.Asked`; MMBench's two passes become one, right when both are."""
    questions: dict[tuple[str, str], dict[str, Any]] = {}
    scores: dict[tuple[str, str], float] = {}
    for one in asked:
        document = one.document
        key = (one.benchmark, document["id"])
        questions[key] = {
            "benchmark": one.benchmark,
            **{name: document[name] for name in ("id", "image", "level", "family", "category")},
            "pair": document["question_id"] if one.benchmark == "mme" else None,
        }
        scores[key] = min(one.score, scores.get(key, 1.0))
    return list(questions.values()), list(scores.values())
