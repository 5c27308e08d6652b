"""The rule by which a verdict on a claim follows from comparisons between variants.

A comparison is a number with a 95 % interval (components/evaluation/variant_results.py) and what the claim says of it:
that it is above zero, or that it is small. It holds when the whole interval says so, does not hold when the whole
interval says the opposite, is not comparable when two curves share no rates or scores, and is within noise otherwise.
A claim does not hold when one of its comparisons does not; else it is not measured when a variant is missing, not
comparable or within noise when one of them is, and holds when all do. Some comparisons are only shown.

Where a variant was trained once, the interval says nothing of how another training would come out: the comparison and
its claim say that they are about images only.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field

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
        trainings: variant -> seeds of its trainings that the number rests on; those that train nothing are not named.
        images_only: one of them was trained once, so that the interval is over images alone.
    """

    what: str
    unit: str
    estimate: Estimate | None
    expected: str
    verdict: str
    missing: str = ""
    trainings: dict[str, list[int]] = field(default_factory=dict)
    images_only: bool = False


@dataclass(frozen=True)
class Verdict:
    """A claim, the paper's words for it, and what came of it; whether that rests on what is about images only."""

    id: str
    paper: str
    verdict: str
    comparisons: list[Comparison]
    images_only: bool = False

    def as_json(self) -> dict:
        """For verdicts.json (docs/ablations.md)."""
        return asdict(self)


@dataclass(frozen=True)
class Number:
    """A function of all results, and what it holds against what.

    Attributes:
        values: gives (R,), or raises KeyError naming what is missing.
        pairs: (variant, the other; None: its codec alone), of all comparisons that are in it.
    """

    values: Callable[[Results], np.ndarray]
    pairs: tuple[tuple[str, str | None], ...] = ()

    def trainings(self, results: Results) -> tuple[dict[str, list[int]], bool]:
        """The seeds of each variant's trainings that it rests on, and whether a variant has one alone."""
        of_pairs = [results.trainings(*pair) for pair in self.pairs]
        seeds: dict[str, set[int]] = {}
        for found in of_pairs:
            for variant, some in found.items():
                seeds.setdefault(variant, set()).update(some)
        single = any(len(some) == 1 for found in of_pairs for some in found.values())
        return {variant: sorted(some) for variant, some in seeds.items()}, single


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
            estimate = Estimate.of(self.number.values(results))
        except KeyError as missing:
            said = SHOWN if self._only_shown else MISSING
            return Comparison(self.what, self.unit, None, self._expected, said, str(missing.args[0]))
        said, trainings = self._verdict(estimate), self.number.trainings(results)
        return Comparison(self.what, self.unit, estimate, self._expected, said, "", *trainings)

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
