"""Curves over layers: Fig. 5, 20 and 21, and Table 1 in numbers. Bands hold 80 % of the images."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from components.analysis.collect import Analysis
from components.analysis.drawing import FAINT, RAW, inks, layer_axis, pyplot, save, shade_stages
from components.analysis.flow import FLOWS
from components.analysis.stages import Stages

BAND = (10, 90)
HEADER = ("tower", "version", "bpp", "curve", "layer", "mean", "p10", "p90")
FLOW_COLOURS = {"cls": "#e0a100", "itself": "#9aa0a6", "summary": "#d6493f", "neighbour": "#2f9e63", "far": "#3b7dd8"}
FLOW_LABELS = {
    "cls": "CLS",
    "itself": "the patch itself",
    "summary": "a summary token",
    "neighbour": "a neighbour",
    "far": "a patch farther away",
}

Looked = tuple[Analysis, Stages | None]


def figure_5(looked: Looked, folder: Path, codec: str | None) -> None:
    """(a) D_avg, (b) D_top1 of raw images, (c) token similarity to what `codec` leaves, with the stages shaded."""
    analysis, _ = looked
    plt = pyplot("fig05")
    figure, axes = plt.subplots(1, 3, figsize=(10.4, 2.9), layout="constrained")
    _distance(axes[0], looked, "d_avg", "(a) average attention distance")
    _distance(axes[1], looked, "d_top1", "(b) distance to the most attended")
    _similarity(axes[2], looked, analysis.of_codec(codec) if codec else [], "(c) token similarity")
    for axis, label in zip(axes, ("patches", "patches", "cosine similarity"), strict=True):
        axis.set_ylabel(label)
    wanted, shown = ("d_avg", "d_top1", "similarity"), ("raw", codec)
    rows = [row for row in table(analysis) if row[3] in wanted and row[1].split(":")[0] in shown]
    save(figure, folder, "fig05-distance-similarity", HEADER, rows)


def figure_20(towers: Sequence[Looked], folder: Path) -> None:
    """D_avg and D_top1 of every tower; raw images, and the strongest compression of each codec."""
    plt = pyplot("fig20")
    figure, axes = plt.subplots(
        len(towers), 2, figsize=(8.6, 0.3 + 2.6 * len(towers)), squeeze=False, layout="constrained"
    )
    for (analysis, stages), pair in zip(towers, axes, strict=True):
        worst = [analysis.strongest(name) for name in analysis.codecs]
        for axis, curve in zip(pair, ("d_avg", "d_top1"), strict=True):
            symbol = {"d_avg": "$D_{avg}$", "d_top1": "$D_{top1}$"}[curve]
            _distance(axis, (analysis, stages), curve, f"{symbol}, {analysis.tower}")
            for place in worst:
                ink = inks(analysis.settings, analysis.bpp)[place]
                mean = analysis.values[curve][:, 1 + place].mean(0)
                axis.plot(mean, color=ink.colour, lw=1.3, dashes=(4, 1.5), label=ink.label)
            axis.set_ylabel("patches")
        pair[0].legend()
    rows = [row for analysis, _ in towers for row in table(analysis) if row[3] in ("d_avg", "d_avg_patches", "d_top1")]
    save(figure, folder, "fig20-distance", HEADER, rows)


def figure_21(towers: Sequence[Looked], folder: Path) -> None:
    """Token similarity of every tower under every codec at every rate."""
    columns = max(len(analysis.codecs) for analysis, _ in towers)
    plt = pyplot("fig21")
    figure, axes = plt.subplots(
        len(towers),
        columns,
        figsize=(0.4 + 3.4 * columns, 0.3 + 2.7 * len(towers)),
        squeeze=False,
        layout="constrained",
        sharey="row",
    )
    for (analysis, stages), line in zip(towers, axes, strict=True):
        for axis, codec in zip(line, analysis.codecs, strict=False):
            _similarity(axis, (analysis, stages), analysis.of_codec(codec), f"{codec}, {analysis.tower}")
        line[0].set_ylabel("cosine similarity")
    rows = [row for analysis, _ in towers for row in table(analysis) if row[3] in ("similarity", "cls_similarity")]
    save(figure, folder, "fig21-similarity", HEADER, rows)


def figure_shares(looked: Looked, folder: Path) -> None:
    """Table 1 in numbers: where the arg-max of a patch's inflow and outflow is, layer by layer, on raw images."""
    analysis, stages = looked
    plt = pyplot("flow-shares")
    figure, axes = plt.subplots(1, 2, figsize=(9, 2.9), sharey=True, layout="constrained")
    for axis, flow in zip(axes, ("inflow", "outflow"), strict=True):
        shares = np.stack([analysis.values[f"{flow}_{kind}"][:, 0].mean(0) for kind in FLOWS])
        axis.stackplot(
            range(analysis.layers),
            100 * shares,
            colors=[FLOW_COLOURS[kind] for kind in FLOWS],
            labels=[FLOW_LABELS[kind] for kind in FLOWS],
            alpha=0.85,
            lw=0,
        )
        for boundary in stages.boundaries if stages else ():
            axis.axvline(boundary - 0.5, color="white", lw=1.2, dashes=(2, 2))
        axis.set_title({"inflow": "inflow: most is taken from", "outflow": "outflow: most is given to"}[flow])
        layer_axis(axis, analysis.layers)
        axis.set_xlim(0, analysis.layers - 1)
        axis.set_ylim(0, 100)
    axes[0].set_ylabel("% of patches")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    wanted = {f"{flow}_{kind}" for flow in ("inflow", "outflow") for kind in FLOWS}
    save(figure, folder, "flow-shares", HEADER, [row for row in table(analysis) if row[3] in wanted])


def figure_summary(looked: Looked, folder: Path) -> None:
    """Summary tokens: how many there are, what they get, and what CLS gets, raw and under the strongest compression."""
    analysis, stages = looked
    plt = pyplot("summary-tokens")
    figure, axes = plt.subplots(1, 3, figsize=(10.4, 2.7), layout="constrained")
    names = ("summary_tokens", "summary_share", "cls_share")
    titles = ("summary tokens", "attention that they get", "attention that CLS gets")
    for axis, name, title in zip(axes, names, titles, strict=True):
        _curve(axis, analysis.values[name][:, 0], RAW, "raw")
        for codec in analysis.codecs:
            place = analysis.strongest(codec)
            ink = inks(analysis.settings, analysis.bpp)[place]
            axis.plot(analysis.values[name][:, 1 + place].mean(0), color=ink.colour, lw=1.3, label=ink.label)
        shade_stages(axis, stages)
        layer_axis(axis, analysis.layers)
        axis.set_title(title)
        axis.set_ylim(bottom=0)
    axes[0].set_ylabel("per image")
    axes[1].set_ylabel("share of the patches'")
    axes[0].legend()
    save(figure, folder, "summary-tokens", HEADER, [row for row in table(analysis) if row[3] in names])


def table(analysis: Analysis) -> Iterator[tuple]:
    """Every curve of a tower as rows of `HEADER`; a layer of -1 is the encoder's input."""
    versions = [("raw", None)]
    versions += [
        (f"{setting.method}:{setting.quality}", rate)
        for setting, rate in zip(analysis.settings, analysis.bpp, strict=True)
    ]
    for name, values_IVL in analysis.values.items():
        for place, (version, rate) in enumerate(versions):
            yield from _rows(analysis.tower, version, rate, name, values_IVL[:, place], 0)
    for name, values_ISL in (("similarity", analysis.similarity_ISL), ("cls_similarity", analysis.cls_similarity_ISL)):
        if not np.isnan(values_ISL).all():
            for place, (version, rate) in enumerate(versions[1:]):
                yield from _rows(analysis.tower, version, rate, name, values_ISL[:, place], -1)


def _rows(tower: str, version: str, rate: float | None, name: str, values_IL: np.ndarray, first: int) -> Iterator:
    mean, low, high = values_IL.mean(0), *np.percentile(values_IL, BAND, axis=0)
    for layer in range(values_IL.shape[1]):
        yield tower, version, rate, name, layer + first, mean[layer], low[layer], high[layer]


def _curve(axis, values_IL: np.ndarray, colour, label: str, first: int = 0) -> None:
    layers = range(first, first + values_IL.shape[1])
    low, high = np.percentile(values_IL, BAND, axis=0)
    axis.fill_between(layers, low, high, color=colour, alpha=0.14, lw=0, zorder=2)
    axis.plot(layers, values_IL.mean(0), color=colour, lw=1.7, marker="o", ms=3, mew=0, zorder=3, label=label)


def _distance(axis, looked: Looked, curve: str, title: str) -> None:
    analysis, stages = looked
    _curve(axis, analysis.values[curve][:, 0], RAW, "raw")
    even = analysis.layout.even_distance
    axis.axhline(even, color=FAINT, lw=0.9, dashes=(5, 3))
    note = {"fontsize": 7, "color": FAINT, "ha": "right", "va": "bottom"}
    axis.annotate("evenly spread attention", (1, even), (-2, 2), axis.get_yaxis_transform(), "offset points", **note)
    shade_stages(axis, stages)
    layer_axis(axis, analysis.layers)
    axis.margins(y=0.16)
    axis.set_title(title)


def _similarity(axis, looked: Looked, places: list[int], title: str) -> None:
    analysis, stages = looked
    for place in sorted(places, key=lambda one: -analysis.bpp[one]):
        ink = inks(analysis.settings, analysis.bpp)[place]
        _curve(axis, analysis.similarity_ISL[:, place], ink.colour, ink.label, first=-1)
    shade_stages(axis, stages, first=-1)
    layer_axis(axis, analysis.layers, first=-1)
    axis.set_title(title)
    if places:
        axis.legend(loc="lower left")
    else:
        axis.text(0.5, 0.5, "no codec", transform=axis.transAxes, ha="center", color=FAINT)
