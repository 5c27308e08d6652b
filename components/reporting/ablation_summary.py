"""verdicts.json: what every variant found, and what became of every claim (docs/ablations.md describes its keys)."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from components.config import Settings, dotted_keys
from components.config_variants import MERGED, Variant
from components.evaluation.benchmarks import BENCHMARKS
from components.evaluation.scores import COLUMNS, LEVELS
from components.evaluation.variant_results import RATE, SCORE, Estimate, Ground, Measured, Results, over_seeds
from components.reporting.ablation_claims import TOLERANCE, find_verdicts
from components.reporting.drops import level_drops, task_drops

SCHEMA = 1
IMAGES_ONLY = "images only"
"""Beside a verdict on something that was trained once: another training might come out otherwise."""


def summarise(results: Results, settings: Settings) -> dict[str, Any]:
    """Everything that the page shows.

    Args:
        results: of the runs that have any.
        settings: which claims are about which variants, and what each variant changes.
    """
    variants = {name: _variant(results, name, settings) for name in settings.variants}
    missing = [name for name, entry in variants.items() if not entry["seeds"]]
    return {
        "schema": SCHEMA,
        "benchmarks": list(BENCHMARKS),
        "tolerance": TOLERANCE,
        "claims": [verdict.as_json() for verdict in find_verdicts(results, settings)],
        "variants": variants,
        "missing": missing,
        "stale": results.stale,
        "task_drops": task_drops(results),
        "anchors": {f"{codec}-{mllm}": _alone(ground) for (codec, mllm), ground in results.grounds.items()},
    }


def _variant(results: Results, name: str, settings: Settings) -> dict[str, Any]:
    entry = settings.variants[name]
    changes = entry.model_dump(mode="json", exclude_defaults=True)
    seeds = sorted(results.runs.get(name, {}))
    found: dict[str, Any] = {
        "method": entry.method,
        "changes": changes,
        "differs": _differs(changes, settings),
        "seeds": seeds,
        "images_only": False,
        "anchor": None,
        "bd_rate": None,
        "bd_score": None,
        "levels": None,
        "curve": None,
        "categories": None,
        "by_seed": {},
    }
    if not seeds:
        return found
    measured = list(results.runs[name].values())
    found["curve"] = _curve(measured, results.seed)
    found["images_only"] = len(seeds) == 1 and results.about[name].model != ""
    ground = results.ground(name)
    if ground is None or results.about[name].is_codec_alone:
        return found
    run = results.about[name]
    found["anchor"] = f"{run.codec}-{run.mllm}"
    found |= _gains(results, name)
    if len(seeds) > 1:
        for seed in seeds:
            one = results.runs[name][seed]
            of_seed = _gains(replace(results, runs={name: {seed: one}}), name)
            found["by_seed"][str(seed)] = of_seed | {"curve": _curve([one], results.seed)}
    found["levels"] = {
        level: asdict(Estimate.of(results.gain(name, on=level, of_levels=True))) for level in LEVELS
    }
    found["categories"] = _category_gains(measured, ground)
    return found


def _differs(changes: dict[str, Any], settings: Settings) -> dict[str, dict[str, Any]]:
    """Dotted key -> the variant's `value`, and the `main` run's; which has no `adapter_of` (None)."""
    main = Variant(codec=settings.codecs[0], mllm=settings.mllms[0]).model_dump(mode="json")
    usual = dict(dotted_keys(main | settings.model_dump(mode="json", include=set(MERGED))))
    given = ((key, value) for key, value in dotted_keys(changes) if not isinstance(value, dict))
    return {key: {"value": value, "main": usual.get(key)} for key, value in given}


def _gains(results: Results, name: str) -> dict[str, Any]:
    """BD-rate and BD-score against its codec alone, per benchmark and for the mean."""
    return {
        kind: {column: asdict(Estimate.of(results.gain(name, on=column, kind=kind))) for column in COLUMNS}
        for kind in (RATE, SCORE)
    }


def _curve(measured: Sequence[Measured], seed: int) -> list[dict[str, Any]]:
    """A point per quality, by rising rate; rates and scores are means over seeds."""
    curves = [one.benchmarks for one in measured]
    rates_P = np.mean([curve.bpp_RP[0] for curve in curves], axis=0)
    points = []
    for place in np.argsort(rates_P, kind="stable"):
        scores = {
            name: asdict(Estimate.of(over_seeds(np.stack([curve.scores[name][:, place] for curve in curves]), seed)))
            for name in COLUMNS
        }
        levels = {level: float(np.mean([one.levels.scores[level][0, place] for one in measured])) for level in LEVELS}
        bare = float(np.mean([curve.bare_RP[0, place] for curve in curves]))
        point = {"quality": int(curves[0].qualities[place]), "bpp": float(rates_P[place]), "bpp_without_header": bare}
        points.append(point | {"scores": scores, "levels": levels})
    return points


def _alone(ground: Ground) -> dict[str, Any]:
    """The codec alone: its curve, and what it loses per level and MMBench category against clean images (C1, C2)."""
    levels = {
        level: asdict(Estimate.of((ground.clean[level][:, None] - ground.anchor.levels.scores[level]).mean(1)))
        for level in LEVELS
        if level in ground.clean
    }
    categories = {
        name: float(ground.clean[name][0] - values_RP[0].mean())
        for name, values_RP in ground.anchor.categories.items()
        if name in ground.clean
    }
    lost = {"lost_levels": levels, "lost_categories": categories, "drops": level_drops(ground)}
    return {"curve": _curve([ground.anchor], 0), **lost}


def _category_gains(measured: Sequence[Measured], ground: Ground) -> dict[str, float]:
    """Points over the codec alone in MMBench's categories, at the rates of the variant's points within the codec's."""
    base = ground.anchor.benchmarks.bpp_RP[0]
    order = np.argsort(base)
    gains: dict[str, list[float]] = {}
    for one in measured:
        rate_P = one.benchmarks.bpp_RP[0]
        inside = (rate_P >= base.min()) & (rate_P <= base.max())
        for name, values_RP in one.categories.items():
            if inside.any():
                there = np.interp(np.log(rate_P[inside]), np.log(base[order]), ground.anchor.categories[name][0, order])
                gains.setdefault(name, []).append(float((values_RP[0, inside] - there).mean()))
    return {name: float(np.mean(values)) for name, values in gains.items()}


def print_verdicts(found: dict[str, Any], console: Console) -> None:
    """The verdicts and the variants' BD-rates, for the terminal."""
    table = Table("claim", *CELLS, title="Claims of the ablations")
    for claim in found["claims"]:
        for place, one in enumerate(claim["comparisons"]):
            table.add_row(f"{claim['id']}: {worded(claim)}" if place == 0 else "", *cells(one))
    console.print(table)
    rates = Table("variant", "seeds", "BD-rate (mean)", "BD-score (mean)", title="Against the codec alone")
    for name, entry in found["variants"].items():
        if entry["bd_rate"]:
            rates.add_row(name, str(len(entry["seeds"])), *gains(entry))
    console.print(rates)
    if found["missing"]:
        console.print(f"No results of {', '.join(found['missing'])}.")
    for name, why in found["stale"].items():
        console.print(f"The results of {name} are stale and passed over: they were {why}. Run it again to renew them.")


CELLS = ("compared", "found", "expected", "trainings", "verdict")


def cells(one: dict[str, Any]) -> tuple[str, ...]:
    """A comparison as a row of a table, under the heads `CELLS`."""
    found = text(one["estimate"], one["unit"], one["missing"])
    return one["what"], found, one["expected"], trainings(one), worded(one)


def worded(one: dict[str, Any]) -> str:
    """The verdict on a claim or a comparison, which says so where it is about images only."""
    return f"{one['verdict']} ({IMAGES_ONLY})" if one["images_only"] else one["verdict"]


def trainings(one: dict[str, Any]) -> str:
    """The seeds that a comparison rests on, `full, k-045: 7, 8, 9; mft: 7`; "none" where nothing in it was trained."""
    if one["estimate"] is None:
        return ""
    by_seeds: dict[str, list[str]] = {}
    for variant, seeds in one["trainings"].items():
        by_seeds.setdefault(", ".join(map(str, seeds)), []).append(variant)
    return "; ".join(f"{', '.join(variants)}: {seeds}" for seeds, variants in by_seeds.items()) or "none"


def gains(entry: dict[str, Any]) -> tuple[str, str]:
    """What a variant gains over its codec alone, BD-rate and BD-score of the mean, for a row of a table."""
    return text(entry[RATE]["mean"], "%"), text(entry[SCORE]["mean"], "points")


def text(estimate: dict[str, float | None] | None, unit: str, missing: str = "") -> str:
    """`-21.3 % (-28.0 to -14.1)`, or what is missing."""
    if estimate is None:
        return f"no results of {missing}"
    if estimate["value"] is None:
        return "not comparable: the curves share too little"
    ends = "no interval" if estimate["low"] is None else f"{estimate['low']:+.1f} to {estimate['high']:+.1f}"
    return f"{estimate['value']:+.1f} {unit} ({ends})"
