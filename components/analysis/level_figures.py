"""C2 joined: rank correlation of each layer's token similarity with the score that each level's questions lose."""

from collections.abc import Iterator
from pathlib import Path

from components.analysis.drawing import FAINT, layer_axis, pyplot, save, shade_stages
from components.analysis.levels import Joined
from components.analysis.stages import Stages
from components.evaluation.scores import LEVELS
from components.reporting.methods import LEVELS as LOOKS

HEADER = ("codec", "mllm", "level", "correlation", "layer", "value", "low", "high")


def figure_levels(joined: Joined, stages: Stages | None, folder: Path, name: str) -> None:
    """Spearman's rho over settings, and the partial one with the rate taken out; bands: 95 % intervals over images."""
    plt = pyplot(name)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True, layout="constrained")
    layers = joined.similarity_SL.shape[1] - 1
    titles = {"rho": "rank correlation with the loss", "partial": "the same, the rate taken out"}
    for axis, (key, title) in zip(axes, titles.items(), strict=True):
        for level in LEVELS:
            found, look = joined.correlations[level][key], LOOKS[level]
            drawn = [
                (layer - 1, *ends)
                for layer, ends in enumerate(zip(found["value"], found["low"], found["high"], strict=True))
                if None not in ends
            ]
            if drawn:
                at, value, low, high = zip(*drawn, strict=True)
                axis.fill_between(at, low, high, color=look.light, alpha=0.13, lw=0)
                axis.plot(at, value, look.marker, ls="-", color=look.light, lw=look.width, ms=4, label=look.label)
        axis.axhline(0, color=FAINT, lw=0.9)
        shade_stages(axis, stages, first=-1)
        layer_axis(axis, layers, first=-1)
        axis.set_title(title)
    axes[0].set_ylabel("Spearman's rho")
    axes[0].set_ylim(bottom=-1.04)
    axes[0].legend(title=f"levels, {len(joined.settings)} settings")
    save(figure, folder, name, HEADER, list(_rows(joined)))


def _rows(joined: Joined) -> Iterator[tuple]:
    for level in LEVELS:
        for key in ("rho", "partial"):
            found = joined.correlations[level][key]
            for layer, ends in enumerate(zip(found["value"], found["low"], found["high"], strict=True)):
                yield joined.codec, joined.mllm, level, key, layer - 1, *ends
