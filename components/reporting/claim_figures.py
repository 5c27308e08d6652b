"""A figure per claim: its comparisons as bars with intervals; of C1 and C2, first what compression costs (Fig. 1)."""

from collections.abc import Iterator
from typing import Any

from components.reporting import figures
from components.reporting.drops import ALONE
from components.reporting.figures import Interval, Panel
from components.reporting.methods import BASE, CLEAN, COTAM, JPEG, LEVELS
from components.reporting.scores import interval_line
from components.reporting.verdicts import FAILS, HOLDS

_LOOKS = {HOLDS: COTAM, FAILS: BASE}
_METHODS = {ALONE: BASE, "bridge-d1": JPEG, "full": COTAM}


def claim_figures(found: dict[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """Claim -> (caption, `<svg>` element) of each of its figures, of a verdicts.json."""
    return {claim["id"]: [*_costs(claim["id"], found), *_comparisons(claim)] for claim in found["claims"]}


def standalone(svg: str) -> str:
    """The same as a file of its own, in the light page's colours."""
    style = f"<style>{figures.stylesheet()}:root{{--ink:#111;--faint:#666;--rule:#ddd;--sans:sans-serif}}</style>"
    head, end, rest = svg.partition(">")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{head} xmlns="http://www.w3.org/2000/svg"{end}{style}{rest}'


def _costs(claim: str, found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if claim == "C1" and found["task_drops"]:
        rows = [
            Interval(f"{category.replace('_', ' ')}, {method}", _METHODS[method], **drops[category])
            for category in next(iter(found["task_drops"]["methods"].values()))
            for method, drops in found["task_drops"]["methods"].items()
        ]
        rates = ", ".join(f"{bpp:.2f}" for bpp in found["task_drops"]["bpp"])
        title = f"Points lost against clean images in MMBench's categories, averaged over {rates} bits per pixel"
        yield title, figures.forest("tasks", title, rows, xlabel="points lost, 95 % interval")
    if claim == "C2":
        panels = [
            Panel(
                f"{name}, alone",
                [interval_line(LEVELS[level], rows, "value", "low", "high") for level, rows in alone["drops"].items()],
                "points lost",
            )
            for name, alone in found["anchors"].items()
            if alone["drops"]
        ]
        if panels:
            title = (
                "Points lost against clean images on low-level (ochre squares), high-level (green triangles) and "
                "cross-level questions (magenta circles)"
            )
            yield title, figures.curves("drops", title, panels, size=figures.MEDIUM, share_y=True)


def _label(one: dict[str, Any]) -> str:
    return f"{one['what']} *" if one["images_only"] else one["what"]


def _comparisons(claim: dict[str, Any]) -> Iterator[tuple[str, str]]:
    measured = [one for one in claim["comparisons"] if one["estimate"] is not None]
    for unit in dict.fromkeys(one["unit"] for one in measured):
        rows = [
            Interval(_label(one), _LOOKS.get(one["verdict"], CLEAN), **one["estimate"])
            for one in measured
            if one["unit"] == unit
        ]
        name = f"{claim['id']}-{'points' if unit == 'points' else 'bits'}"
        title = f"{claim['id']}: its comparisons, in {unit}" if unit == "points" else f"{claim['id']}: bits saved"
        once = any(one["images_only"] for one in measured if one["unit"] == unit)
        over = "; *: over images only, a variant was trained once" if once else ""
        yield title, figures.forest(name, title, rows, xlabel=f"{unit}, 95 % interval{over}")
