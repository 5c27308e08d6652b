"""Pictures of single images: CLS attention, PCA features and token similarity, raw and compressed (Fig. 4, 24, 25)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from components.analysis.drawing import FAINT, pyplot, save
from components.analysis.flow import Layout
from components.analysis.keep import Kept, kept_layers
from components.analysis.pca import pca_colours
from components.analysis.stages import Stages

ATTENTION, SIMILARITY = "cividis", "magma"
"""Colour maps that are even in lightness."""


def four_layers(layers: int, stages: Stages | None) -> list[int]:
    """A layer of stage 1, of stage 2, the first of stage 3, and the last but one (the paper: 0, 5, 15, 22 of 24)."""
    if stages is None:
        return sorted({0, layers // 4, 5 * layers // 8, max(0, layers - 2)})
    second = stages.runs[1]
    return sorted({0, (second.start + second.stop - 1) // 2, stages.runs[2].start, layers - 2})


def figure_4(kept: Kept, layout: Layout, stages: Stages | None, setting: str, shown: int, folder: Path) -> None:
    """CLS attention and PCA features of (a) the raw and (b) the compressed image, (c) how alike their tokens are."""
    layers = four_layers(kept.inflow_VLT.shape[1], stages)
    versions = [0, 1 + shown] if len(kept.seen_VHW3) > 1 else [0]
    lines = [(what, version) for version in versions for what in ("attention", "features")]
    plt = pyplot("fig04")
    figure, axes = plt.subplots(
        len(lines) + (len(versions) > 1),
        1 + len(layers),
        squeeze=False,
        layout="constrained",
        figsize=(1.25 * (1 + len(layers)) + 0.9, 1.3 * (len(lines) + (len(versions) > 1)) + 0.2),
    )
    rows = []
    for axis in axes.flat:
        axis.set_axis_off()
    for line, (what, version) in zip(axes, lines, strict=False):
        if what == "attention":
            line[0].imshow(kept.seen_VHW3[version])
            rate = f"{setting}, {kept.bpp[shown]:.2f} bpp" if version else "raw"
            line[0].set_title(rate, fontsize=7.5, fontweight="normal")
        name = {"attention": "CLS attention" if layout.cls else "mean attention", "features": "PCA features"}[what]
        _row_label(line[1], name)
        for axis, layer in zip(line[1:], layers, strict=True):
            if what == "attention":
                both = kept.cls_attention_VLN[versions, layer]
                _map(axis, kept.cls_attention_VLN[version, layer], layout, ATTENTION, 0, both.max())
            else:
                axis.imshow(_colours(kept, layer)[min(version, 1)].reshape(*layout.grid, 3), extent=(0, 1, 0, 1))
    for axis, layer in zip(axes[0, 1:], layers, strict=True):
        stage = f" (stage {stages.stage_of(layer)})" if stages else ""
        axis.set_title(f"layer {layer}{stage}", fontsize=7.5, fontweight="normal")
    if len(versions) > 1:
        _row_label(axes[-1, 1], "similarity")
        lowest = min(0.5, float(kept.similarity_SLN[shown][[layer + 1 for layer in layers]].min()))
        for axis, layer in zip(axes[-1, 1:], layers, strict=True):
            similarity_N = kept.similarity_SLN[shown, layer + 1]
            picture = _map(axis, similarity_N, layout, SIMILARITY, lowest, 1)
            axis.set_title(f"mean {similarity_N.mean():.3f}", fontsize=7, fontweight="normal", color=FAINT)
            rows += [(kept.name, setting, layer, patch, value) for patch, value in enumerate(similarity_N)]
        figure.colorbar(picture, ax=axes[-1, 0], orientation="horizontal", fraction=0.25, label="cosine similarity")
    save(figure, folder, "fig04-stages", ("image", "version", "layer", "patch", "similarity"), rows)


def figure_24(examples: Sequence[Kept], layout: Layout, setting: str, shown: int, folder: Path) -> None:
    """CLS attention in up to twelve layers (of a tower without a CLS, what patches give on average)."""
    layers = kept_layers(examples[0].inflow_VLT.shape[1])
    rows = []

    def draw(axis, kept: Kept, version: int, layer: int) -> None:
        attention_N = kept.cls_attention_VLN[version, layer]
        _map(axis, attention_N, layout, ATTENTION, 0, attention_N.max())
        name = setting if version else "raw"
        rows.extend((kept.name, name, layer, patch, value) for patch, value in enumerate(attention_N))

    figure = _grid("fig24", examples, layers, setting, shown, draw)
    save(figure, folder, "fig24-cls-attention", ("image", "version", "layer", "patch", "attention"), rows)


def figure_25(examples: Sequence[Kept], layout: Layout, setting: str, shown: int, folder: Path) -> None:
    """PCA features in up to twelve layers; per image and layer one basis for raw and compressed."""
    layers = kept_layers(examples[0].inflow_VLT.shape[1])
    colours = {(kept.name, layer): _colours(kept, layer) for kept in examples for layer in layers}
    rows = []

    def draw(axis, kept: Kept, version: int, layer: int) -> None:
        colours_N3 = colours[kept.name, layer][min(version, 1)]
        axis.imshow(colours_N3.reshape(*layout.grid, 3), extent=(0, 1, 0, 1))
        name = setting if version else "raw"
        rows.extend((kept.name, name, layer, patch, *colour) for patch, colour in enumerate(colours_N3))

    figure = _grid("fig25", examples, layers, setting, shown, draw)
    save(figure, folder, "fig25-pca", ("image", "version", "layer", "patch", "red", "green", "blue"), rows)


def _grid(name: str, examples: Sequence[Kept], layers: Sequence[int], setting: str, shown: int, draw):
    """An image per pair of rows, raw above compressed; a layer per column."""
    versions = [0, 1 + shown] if len(examples[0].seen_VHW3) > 1 else [0]
    plt = pyplot(name)
    lines = [(kept, version) for kept in examples for version in versions]
    figure, axes = plt.subplots(
        len(lines), 1 + len(layers), figsize=(0.78 * (1 + len(layers)), 0.8 * len(lines) + 0.35), squeeze=False
    )
    figure.subplots_adjust(left=0.03, right=0.995, bottom=0.01, top=1 - 0.3 / (0.8 * len(lines) + 0.35))
    figure.subplots_adjust(wspace=0.04, hspace=0.06)
    for (kept, version), line in zip(lines, axes, strict=True):
        for axis in line:
            axis.set_axis_off()
        line[0].imshow(kept.seen_VHW3[version])
        _row_label(line[0], setting if version else "raw")
        for axis, layer in zip(line[1:], layers, strict=True):
            draw(axis, kept, version, layer)
    for axis, title in zip(axes[0], ("image", *layers), strict=True):
        axis.set_title(str(title), fontsize=8, fontweight="normal", loc="center", pad=2)
    return figure


def _map(axis, values_N: np.ndarray, layout: Layout, colours: str, low: float, high: float):
    rows, columns = layout.grid
    return axis.imshow(values_N.reshape(layout.grid), cmap=colours, vmin=low, vmax=high, extent=(0, columns, rows, 0))


def _colours(kept: Kept, layer: int) -> np.ndarray:
    return pca_colours(kept.features[layer + 1])


def _row_label(axis, text: str) -> None:
    style = {"fontsize": 7.5, "color": FAINT, "rotation": 90, "ha": "right", "va": "center"}
    axis.text(-0.06, 0.5, text, transform=axis.transAxes, **style)
