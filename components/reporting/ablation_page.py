"""The ablations as one HTML file that fetches nothing, in the look of the main report: a function of verdicts.json."""

import json
from typing import Any

from markupsafe import Markup

from components.config_variants import METHODS
from components.evaluation.variant_results import RATE, SCORE
from components.reporting import figures
from components.reporting.ablation_summary import text, trainings, worded
from components.reporting.claim_figures import claim_figures
from components.reporting.figures import Interval
from components.reporting.methods import COTAM, JPEG, LEVELS, benchmark_label
from components.reporting.templating import environment, stylesheet
from components.reporting.verdicts import FAILS, HOLDS

_BADGES = {HOLDS: "holds", FAILS: "fails"}


def render(found: dict[str, Any]) -> str:
    """The page of a verdicts.json."""
    measured = {name: entry for name, entry in found["variants"].items() if entry["bd_rate"]}
    context = {
        "css": stylesheet(),
        "found": found,
        "measured": measured,
        "once": [name for name, entry in measured.items() if entry["images_only"]],
        "baselines": [name for name, entry in measured.items() if METHODS[entry["method"]].baselines],
        "badge": lambda verdict: _BADGES.get(verdict, "unclear"),
        "text": text,
        "worded": worded,
        "trainings": trainings,
        "differs": _differs,
        "label": benchmark_label,
        "figures": {
            claim: [(title, Markup(svg)) for title, svg in drawn] for claim, drawn in claim_figures(found).items()
        },
        "levels": LEVELS,
        "bars": [
            (title, Markup(_bars(kind, title, unit, measured)))
            for kind, title, unit in (
                (RATE, "Bits at equal score against the codec alone", "%"),
                (SCORE, "Points at equal rate over the codec alone", "points"),
            )
            if measured
        ],
        "level_bars": Markup(_level_bars(measured)) if measured else "",
    }
    return environment("ablations").get_template("page.html.j2").render(context)


def _bars(kind: str, title: str, unit: str, measured: dict[str, Any]) -> str:
    rows = []
    for name, entry in measured.items():
        mean = entry[kind]["mean"]
        rows.append(Interval(name, COTAM if entry["method"] == "cotam" else JPEG, **mean))
    return figures.forest(kind, title, rows, xlabel=f"{unit}, mean score of the six benchmarks, 95 % interval")


def _level_bars(measured: dict[str, Any]) -> str:
    rows = [
        Interval(f"{name}, {level}", look, **entry["levels"][level])
        for name, entry in measured.items()
        for level, look in LEVELS.items()
    ]
    return figures.forest("levels", "Points per level", rows, xlabel="points over the codec alone at equal rate")


def _differs(entry: dict[str, Any]) -> str:
    """`guidance.k: 0.45 (main run: 0.75), adapter_of: full`."""
    said = []
    for key, sides in entry["differs"].items():
        value, main = (json.dumps(sides[side]).replace('"', "") for side in ("value", "main"))
        said.append(f"{key}: {value}" if sides["main"] is None else f"{key}: {value} (main run: {main})")
    return ", ".join(said) or "nothing: the main run"
