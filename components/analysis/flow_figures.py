"""Information flow over an image (Fig. 3, 26): a line per patch, from where it takes most or to where it gives most."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from components.analysis.collect import Analysis
from components.analysis.curve_figures import FLOW_COLOURS, FLOW_LABELS
from components.analysis.drawing import FAINT, pyplot, save
from components.analysis.flow import FLOWS, NEIGHBOUR, Layout
from components.analysis.keep import Kept, kept_layers
from components.analysis.map_figures import ATTENTION
from components.analysis.stages import Stages

HEADER = ("image", "version", "layer", "patch", "flow", "token", "kind")
CLS_PLACE = (-0.09, -0.09)
"""Of CLS beside the image, in widths of the image: it has no place in it."""


def figure_3(kept: Kept, layout: Layout, stages: Stages | None, folder: Path) -> None:
    """Inflow and outflow in the layer at the middle of each stage."""
    layers = kept.inflow_VLT.shape[1]
    runs = stages.runs if stages else [range(1), range(layers // 2, layers // 2 + 1), range(layers - 1, layers)]
    chosen = [(run.start + run.stop - 1) // 2 for run in runs]
    titles = [f"stage {place + 1}, layer {layer}" if stages else f"layer {layer}" for place, layer in enumerate(chosen)]
    figure = _flows("fig03", kept, layout, chosen, titles, 1.8)
    save(figure, folder, "fig03-flow", HEADER, list(_rows(kept, layout, chosen)))


def figure_26(kept: Kept, layout: Layout, folder: Path) -> None:
    """Inflow and outflow in up to twelve layers, of one image."""
    chosen = kept_layers(kept.inflow_VLT.shape[1])
    figure = _flows("fig26", kept, layout, chosen, [f"layer {layer}" for layer in chosen], 1.2)
    save(figure, folder, "fig26-flow-layers", HEADER, list(_rows(kept, layout, chosen)))


def figure_26_averaged(analysis: Analysis, folder: Path) -> None:
    """How often each patch is where others' inflow comes from, and where their outflow goes: over all raw images."""
    layers, (cls, patches) = kept_layers(analysis.layers), (analysis.layout.cls, analysis.layout.patches)
    plt = pyplot("fig26-averaged")
    figure, axes = plt.subplots(2, len(layers), figsize=(0.95 * len(layers) + 0.6, 2.6), squeeze=False)
    figure.subplots_adjust(left=0.05, right=0.995, bottom=0.02, top=0.84, wspace=0.06, hspace=0.3)
    rows = []
    for line, flow in zip(axes, ("inflow", "outflow"), strict=True):
        for axis, layer in zip(line, layers, strict=True):
            share_T = analysis.sums[flow][0, layer] / (len(analysis.images) * patches)
            axis.imshow(share_T[cls:].reshape(analysis.layout.grid), cmap=ATTENTION, vmin=0)
            at_cls = f"\nCLS {100 * share_T[0]:.0f} %" if cls else ""
            axis.set_title(f"layer {layer}{at_cls}", fontsize=7, fontweight="normal", loc="center", pad=2)
            axis.set_xticks([])
            axis.set_yticks([])
            rows += [(analysis.tower, flow, layer, token - cls, share) for token, share in enumerate(share_T)]
        line[0].set_ylabel(flow, fontsize=8)
    header = ("tower", "flow", "layer", "patch", "share")
    save(figure, folder, "fig26-flow-averaged", header, rows)


def _flows(name: str, kept: Kept, layout: Layout, layers: Sequence[int], titles: Sequence[str], side: float):
    plt = pyplot(name)
    columns = min(6, len(layers))
    blocks = -(-len(layers) // columns)
    figure, axes = plt.subplots(
        2 * blocks,
        columns,
        figsize=(side * columns + 0.2, side * 2.06 * blocks + 0.5),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for place, (layer, title) in enumerate(zip(layers, titles, strict=True)):
        block, column = divmod(place, columns)
        for line, ends_T in enumerate((kept.inflow_VLT[0, layer], kept.outflow_VLT[0, layer])):
            axis = axes[2 * block + line, column]
            _draw(axis, kept, layout, layer, ends_T)
            axis.set_title(title if line == 0 else "", fontsize=8, fontweight="normal", loc="center", pad=2)
            if column == 0:
                text = ("inflow", "outflow")[line]
                axis.text(-0.16, 0.5, text, transform=axis.transAxes, rotation=90, va="center", fontsize=8, color=FAINT)
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=FLOW_COLOURS[kind], lw=2, label=FLOW_LABELS[kind]) for kind in FLOWS]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _draw(axis, kept: Kept, layout: Layout, layer: int, ends_T: np.ndarray) -> None:
    """A line from every patch to the token at the other end, with a dot at the patch."""
    from matplotlib.collections import LineCollection

    rows, columns = layout.grid
    picture = 0.45 * kept.seen_VHW3[0].mean(-1, keepdims=True).repeat(3, -1) + 0.55 * 255
    axis.imshow(picture.astype(np.uint8), extent=(0, 1, 1, 0))
    row, column = np.divmod(np.arange(layout.patches), columns)
    places_N2 = np.stack([(column + 0.5) / columns, (row + 0.5) / rows], -1)
    places_T2 = np.concatenate([np.tile(CLS_PLACE, (layout.cls, 1)), places_N2])
    kinds = _kinds(kept, layout, layer, ends_T)
    colours = [FLOW_COLOURS[kind] for kind in kinds]
    ends = places_T2[ends_T[layout.cls :]]
    axis.add_collection(LineCollection(np.stack([places_N2, ends], 1), colors=colours, lw=0.7, alpha=0.75))
    axis.scatter(*places_N2.T, s=18 / columns, c=colours, lw=0, zorder=3)
    if layout.cls:
        axis.scatter(*CLS_PLACE, s=16, marker="s", c=FLOW_COLOURS["cls"], lw=0, zorder=3)
    axis.set_xlim(-0.14, 1.01)
    axis.set_ylim(1.01, -0.14)
    axis.set_aspect(rows / columns)


def _kinds(kept: Kept, layout: Layout, layer: int, ends_T: np.ndarray) -> list[str]:
    """What is at the other end, for every patch (`flow.FLOWS`)."""
    ends_N = ends_T[layout.cls :] - layout.cls
    summary_N, distances_NN = kept.summary_VLN[0, layer], layout.distances_NN.numpy()
    kinds = []
    for patch, end in enumerate(ends_N):
        fits = (end < 0, end == patch, end >= 0 and summary_N[end], end >= 0 and distances_NN[patch, end] <= NEIGHBOUR)
        kinds.append(FLOWS[fits.index(True)] if True in fits else FLOWS[-1])
    return kinds


def _rows(kept: Kept, layout: Layout, layers: Sequence[int]):
    for layer in layers:
        for flow, ends_T in (("inflow", kept.inflow_VLT[0, layer]), ("outflow", kept.outflow_VLT[0, layer])):
            for patch, kind in enumerate(_kinds(kept, layout, layer, ends_T)):
                # CLS is token -1, so that patches have the same numbers in every tower.
                yield kept.name, "raw", layer, patch, flow, int(ends_T[layout.cls + patch]) - layout.cls, kind
