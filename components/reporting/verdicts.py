"""The rule by which a verdict on a claim follows from comparisons between variants.

A comparison is a number with a 95 % interval (components/evaluation/variant_results.py) and what the claim says of it:
that it is above zero, or that it is small. It holds when the whole interval says so, does not hold when the whole
interval says the opposite, is not comparable when two curves share no rates or scores, and is within noise otherwise.
A claim does not hold when one of its comparisons does not; else it is not measured when a variant is missing, not
comparable or within noise when one of them is, and holds when all do. Some comparisons are only shown.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from components.evaluation.variant_results import Estimate, Results

HOLDS, FAILS, NOISE, MISSING = "holds", "does not hold", "within noise", "not measured"
INCOMPARABLE, SHOWN = "not comparable", "shown only"
WORST_FIRST = (FAILS, MISSING, INCOMPARABLE, NOISE, HOLDS)


@dataclass(frozen=True)
class Comparison:
    """One line of a claim.

    Attributes:
        what: in words.
        unit: `points` or `%`.
        estimate: the number; None when a variant is missing.
        expected: `above 0`, or the range in which it is to lie; `nothing` where it is only shown.
        verdict: `holds`, `does not hold`, `within noise`, `not comparable`, `not measured` or `shown only`.
        missing: what there are no results of.
    """

    what: str
    unit: str
    estimate: Estimate | None
    expected: str
    verdict: str
    missing: str = ""


@dataclass(frozen=True)
class Verdict:
    """A claim, the paper's words for it, and what came of it."""

    id: str
    paper: str
    verdict: str
    comparisons: list[Comparison]

    def as_json(self) -> dict:
        """For verdicts.json (docs/ablations.md)."""
        return asdict(self)


Number = Callable[[Results], np.ndarray]
"""Gives (R,), or raises KeyError naming what is missing."""


@dataclass(frozen=True)
class Expectation:
    """What a claim says of a number: that it lies above `low` and below `high`; without either, it is only shown."""

    what: str
    number: Number
    unit: str = "points"
    low: float = 0.0
    high: float = float("inf")

    def check(self, results: Results) -> Comparison:
        """Hold it against the results."""
        try:
            estimate = Estimate.of(self.number(results))
        except KeyError as missing:
            said = SHOWN if self._only_shown else MISSING
            return Comparison(self.what, self.unit, None, self._expected, said, str(missing.args[0]))
        return Comparison(self.what, self.unit, estimate, self._expected, self._verdict(estimate))

    @property
    def _only_shown(self) -> bool:
        return self.low == -float("inf") and self.high == float("inf")

    @property
    def _expected(self) -> str:
        if self._only_shown:
            return "nothing"
        if self.high == float("inf"):
            return f"above {self.low:g}"
        return f"below {self.high:g}" if self.low == -float("inf") else f"{self.low:g} to {self.high:g}"

    def _verdict(self, found: Estimate) -> str:
        if self._only_shown:
            return SHOWN
        if found.value is None:
            return INCOMPARABLE
        if found.low is None:
            return NOISE
        if found.low > self.low and found.high < self.high:
            return HOLDS
        return FAILS if found.high < self.low or found.low > self.high else NOISE
