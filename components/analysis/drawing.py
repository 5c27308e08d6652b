"""How every figure of the analysis looks, and how it is written: SVG, PNG and its numbers as CSV, under one name."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.analysis.stages import Stages
from components.evaluation.streams import Setting
from components.files import atomic_write
from components.reporting import style
from components.reporting.methods import BASE, COTAM, CROSS, HIGH, JPEG, WEBP

INK, FAINT, RULE = "#222222", "#666666", "#dddddd"
STAGE_COLOURS = ("#3b7dd8", "#2f9e63", "#d6493f")
"""Blue, green, red, as the paper shades its stages."""
RAW = "#222222"
HUES = (BASE.light, COTAM.light, CROSS.light, HIGH.light)
"""Of codecs that have no colour of their own elsewhere in the project."""
DOTS = 130


def pyplot(name: str):
    """Matplotlib, set to the analysis's style; `name` seeds the SVG's ids."""
    plt = style.pyplot(name, INK, FAINT)
    plt.rcParams.update(
        {
            "axes.labelcolor": FAINT,
            "axes.titlelocation": "left",
            "axes.titlesize": 9.5,
            "axes.titleweight": "bold",
            "axes.spines.right": False,
            "axes.spines.top": False,
            "legend.frameon": False,
            "legend.fontsize": 7.5,
        }
    )
    return plt


def save(figure, folder: Path, name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write NAME.svg, NAME.png and NAME.csv, and close the figure."""
    from matplotlib import pyplot as plt

    for kind, metadata in (("svg", {"Date": None, "Creator": None}), ("png", {"Software": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=DOTS, facecolor="white", metadata=metadata)
        atomic_write(folder / f"{name}.{kind}", buffer.getvalue())
    plt.close(figure)
    write_csv(folder / f"{name}.csv", header, rows)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table; numbers with at most seven digits, what is not defined as an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_cell(value) for value in row] for row in rows)
    atomic_write(path, text.getvalue())


def _cell(value: Any) -> Any:
    if value is None or value != value:
        return ""
    return f"{value:.7g}" if hasattr(value, "__float__") and not isinstance(value, int | str) else value


@dataclass(frozen=True)
class Ink:
    """How a setting's curve is drawn, and what its legend says."""

    colour: Any
    label: str


def inks(settings: Sequence[Setting], bpp: Sequence[float]) -> list[Ink]:
    """A hue per codec, the stronger the fewer the bits."""
    from matplotlib.colors import to_rgb

    names = list(dict.fromkeys(setting.method for setting in settings))
    own = {"jpeg": JPEG.light, "webp": WEBP.light}
    free = list(HUES)
    hues = {name: own.get(name) or free[place % len(free)] for place, name in enumerate(names)}
    found = []
    for place, setting in enumerate(settings):
        alike = [other for other, one in enumerate(settings) if one.method == setting.method]
        rank = sorted(alike, key=lambda other: bpp[other]).index(place) / max(1, len(alike) - 1)
        colour = tuple(part + (1 - part) * 0.55 * rank for part in to_rgb(hues[setting.method]))
        found.append(Ink(colour, f"{setting.method} {setting.quality}, {bpp[place]:.2f} bpp"))
    return found


def shade_stages(axis, stages: Stages | None, first: int = 0) -> None:
    """Shade the stages behind a curve over layers, and show how far each boundary is sure.

    Args:
        axis: whose x is the layer.
        stages: None: nothing is shaded.
        first: the first layer that is shown; -1 with the encoder's input.
    """
    if stages is None:
        return
    for run, colour in zip(stages.runs, STAGE_COLOURS, strict=True):
        start = first - 0.5 if run.start == 0 else run.start - 0.5
        axis.axvspan(start, run.stop - 0.5, color=colour, alpha=0.09, lw=0, zorder=0)
    for boundary, (low, high) in zip(stages.boundaries, stages.intervals, strict=True):
        axis.axvline(boundary - 0.5, color=FAINT, lw=0.7, dashes=(2, 2), zorder=1)
        if high > low:
            bar = {"color": FAINT, "lw": 2.2, "alpha": 0.6, "solid_capstyle": "butt"}
            axis.plot([low - 0.5, high - 0.5], [0.015, 0.015], transform=axis.get_xaxis_transform(), **bar)
    axis.set_xlim(first - 0.5, stages.layers - 0.5)


def layer_axis(axis, layers: int, first: int = 0) -> None:
    """Whole layers on the x axis; the encoder's input is called so."""
    step = max(1, -(-layers // 12))
    ticks = [first, *range(0, layers, step)] if first < 0 else list(range(0, layers, step))
    axis.set_xticks(ticks, ["in" if tick < 0 else str(tick) for tick in ticks])
    axis.set_xlabel("layer")
    axis.grid(axis="y", color=RULE, lw=0.7)
