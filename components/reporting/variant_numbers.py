"""The numbers that claims about variants are held against: functions of all results, one value per resample."""

import numpy as np

from components.evaluation.variant_results import RATE, Results
from components.reporting.verdicts import Number


def over(test: str, base: str | None = None, on: str = "mean", of_levels: bool = False) -> Number:
    """Points that a variant gains over another, or over its codec alone, at equal rate."""
    return Number(lambda results: results.gain(test, base, on, of_levels=of_levels), ((test, base),))


def below(test: str, on: str = "mean") -> Number:
    """Points that a variant loses against its codec alone, at equal rate."""
    return Number(lambda results: -results.gain(test, on=on), ((test, None),))


def saved(test: str, base: str | None = None) -> Number:
    """Bits that a variant saves against another at equal score, in per cent."""
    return Number(lambda results: -results.gain(test, base, kind=RATE), ((test, base),))


def wasted(test: str) -> Number:
    """Bits that a variant needs beyond those of its codec alone at equal score, in per cent."""
    return Number(lambda results: results.gain(test, kind=RATE), ((test, None),))


def minus(first: Number, second: Number, factor: float = 1.0) -> Number:
    """The first less so many times the second, resample by resample."""
    return Number(
        lambda results: first.values(results) - factor * second.values(results), first.pairs + second.pairs
    )


def level_drop(first: str, second: str) -> Number:
    """How much more the codec alone costs on one level than on another, in points, averaged over rates."""

    def values(results: Results) -> np.ndarray:
        if not results.grounds:
            raise KeyError("the main run")
        ground = next(iter(results.grounds.values()))
        drops = [
            (ground.clean[level][:, None] - ground.anchor.levels.scores[level]).mean(1) for level in (first, second)
        ]
        return drops[0] - drops[1]

    return Number(values)


def unevenness(test: str) -> Number:
    """What `full` gains over a variant on TextVQA and SEED-Bench, less what it gains on MME (paper, section 4.3)."""

    def values(results: Results) -> np.ndarray:
        gains = [results.gain("full", test, name) for name in ("textvqa", "seedbench", "mme")]
        return (gains[0] + gains[1]) / 2 - gains[2]

    return Number(values, (("full", test),))


def unmeasured(what: str) -> Number:
    """Nothing here measures it."""

    def values(_: Results) -> np.ndarray:
        raise KeyError(what)

    return Number(values)
