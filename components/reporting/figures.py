"""Curves as inline SVG: matplotlib draws them, the page's CSS colours them.

Matplotlib knows only fixed colours, so every ink is drawn in a placeholder that is exchanged for a CSS variable
afterwards: one figure serves the light and the dark page. Text stays text, so that a reader can search and copy it.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from components.reporting.methods import LOOKS, Look
from components.reporting.numbers import MINUS
from components.reporting.style import pyplot

INK, FAINT, GRID = "#010101", "#020202", "#030303"
_INKS = {INK: "var(--ink)", FAINT: "var(--faint)", GRID: "var(--rule)"}
_PLACEHOLDERS = {look.key: f"#0405{index + 16:02x}" for index, look in enumerate(LOOKS)}
SMALL, MEDIUM, LARGE = (3.35, 2.55), (4.9, 3.1), (9.2, 4.5)
"""Width and height of a panel, in inches: three, two or one of them stand beside each other on the page."""


@dataclass(frozen=True)
class Line:
    """A series: x and y of equal length, and, where known, the 95 % interval of each y."""

    look: Look
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


@dataclass(frozen=True)
class Level:
    """A horizontal line across a panel, such as the score on clean images."""

    y: float
    label: str


@dataclass(frozen=True)
class Panel:
    """One plot: its lines, the lines to hold them against, and what its axes say."""

    title: str
    lines: Sequence[Line]
    ylabel: str = ""
    xlabel: str = "bits per pixel"
    levels: Sequence[Level] = field(default_factory=tuple)
    log_x: bool = True
    from_zero: bool = False


@dataclass(frozen=True)
class Interval:
    """A row of a forest plot: a value with its 95 % interval, each of them may be missing."""

    label: str
    look: Look
    value: float | None
    low: float | None
    high: float | None


def curves(
    name: str,
    title: str,
    panels: Sequence[Panel],
    *,
    size: tuple[float, float] = SMALL,
    share_y: bool = False,
) -> str:
    """Draw panels in a grid.

    Args:
        name: unique on the page; it also seeds the SVG's ids, so that equal inputs give equal bytes.
        title: what a screen reader says.
        panels: what to draw, row by row.
        size: of a panel; it says how many stand in a row.
        share_y: one vertical axis for all panels.

    Returns:
        An `<svg>` element.
    """
    plt = pyplot(name, INK, FAINT)
    columns = {SMALL: 3, MEDIUM: 2}.get(size, 1)
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(columns * size[0], rows * size[1]), squeeze=False, layout="constrained", sharey=share_y
    )
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for index, (axis, panel) in enumerate(zip(axes.flat, panels, strict=False)):
        _panel(axis, panel)
        if index + columns < len(panels) and panel.xlabel == panels[index + columns].xlabel:
            axis.set_xlabel("")
    return _svg(figure, name, title)


def forest(name: str, title: str, rows: Sequence[Interval], *, xlabel: str) -> str:
    """Draw values with their intervals, one under the other, against zero."""
    plt = pyplot(name, INK, FAINT)
    figure, axis = plt.subplots(figsize=(LARGE[0], 0.34 * len(rows) + 0.7), layout="constrained")
    for place, row in enumerate(reversed(rows)):
        if row.value is None:
            axis.text(0, place, "not defined", color=FAINT, fontsize=8, va="center", ha="center")
            continue
        colour = _PLACEHOLDERS[row.look.key]
        if row.low is not None and row.high is not None:
            axis.plot([row.low, row.high], [place, place], color=colour, lw=2.4, alpha=0.55, solid_capstyle="round")
        axis.plot([row.value], [place], row.look.marker or "o", color=colour, ms=6.5)
    axis.axvline(0, color=FAINT, lw=1)
    axis.set_yticks(range(len(rows)), [row.label for row in reversed(rows)])
    axis.set_ylim(-0.6, len(rows) - 0.4)
    axis.margins(x=0.08)
    axis.grid(axis="x", color=GRID, lw=0.7)
    axis.set_xlabel(xlabel, color=FAINT)
    axis.tick_params(axis="y", length=0)
    for side in ("left", "right", "top"):
        axis.spines[side].set_visible(False)
    return _svg(figure, name, title)


def stylesheet() -> str:
    """The CSS variables of every series, for the light and the dark page."""
    light = "".join(f"--{look.key}:{look.light};" for look in LOOKS)
    dark = "".join(f"--{look.key}:{look.dark};" for look in LOOKS)
    return f":root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"


def _panel(axis, panel: Panel) -> None:
    from matplotlib.ticker import MaxNLocator

    for level in panel.levels:
        axis.axhline(level.y, color=_PLACEHOLDERS["clean"], lw=1.2, dashes=(5, 3))
        axis.annotate(
            level.label,
            (1, level.y),
            (-2, 3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=7.5,
            color=_PLACEHOLDERS["clean"],
        )
    for depth, line in enumerate(reversed(panel.lines)):
        colour = _PLACEHOLDERS[line.look.key]
        style = {"dashes": line.look.dash} if line.look.dash else {}
        if line.low is not None and line.high is not None:
            axis.fill_between(line.x, line.low, line.high, color=colour, alpha=0.13, lw=0, zorder=2)
        axis.plot(
            line.x,
            line.y,
            color=colour,
            lw=line.look.width,
            marker=line.look.marker,
            ms=4 + line.look.width / 2,
            mew=0,
            zorder=3 + depth,
            gid=f"curve-{line.look.key}",
            **style,
        )
    axis.margins(x=0.04, y=0.12)
    if panel.log_x:
        _log_axis(axis)
    axis.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], min_n_ticks=4))
    axis.yaxis.set_major_formatter(_plain)
    if panel.from_zero:
        axis.set_ylim(bottom=0)
    axis.set_title(panel.title, loc="left", fontsize=10, color=INK, fontweight="bold")
    axis.set_xlabel(panel.xlabel, color=FAINT)
    axis.set_ylabel(panel.ylabel, color=FAINT)
    axis.grid(color=GRID, lw=0.7)
    for side in ("right", "top"):
        axis.spines[side].set_visible(False)


def _log_axis(axis) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    axis.set_xscale("log")
    low, high = axis.get_xlim()
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if high > 5 * low else MaxNLocator(4))
    axis.xaxis.set_major_formatter(_plain)
    axis.xaxis.set_minor_locator(NullLocator())


def _plain(value: float, _: int) -> str:
    """A tick's label: 0.2 and 5 rather than 2 x 10^-1 and 5.0."""
    return f"{value:g}".replace("-", MINUS)


def _svg(figure, name: str, title: str) -> str:
    from matplotlib import pyplot as plt

    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    plt.close(figure)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.S)
    svg = re.sub(r'id="curve-(\w+)"', r'data-curve="\1"', svg)
    for placeholder, variable in _INKS.items():
        svg = svg.replace(placeholder, variable)
    for key, placeholder in _PLACEHOLDERS.items():
        svg = svg.replace(placeholder, f"var(--{key})")
    svg = svg.replace("'DejaVu Sans'", "var(--sans)")
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\1{name}-", svg)
    svg = re.sub(
        r'<svg [^>]*?viewBox="([^"]*)"[^>]*>',
        rf'<svg class="figure" role="img" aria-label="{escape(title)}" viewBox="\1" '
        'xmlns:xlink="http://www.w3.org/1999/xlink">',
        svg,
        count=1,
    )
    return svg
