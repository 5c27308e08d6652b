"""Everything that the analysis writes: figures with their numbers, stages.json, summary.json and the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.analysis import curve_figures, flow_figures, level_figures, map_figures, page
from components.analysis.collect import Analysis, analyse
from components.analysis.compressors import Choice, Compressors
from components.analysis.drawing import write_csv
from components.analysis.images import Images
from components.analysis.keep import Kept, keep
from components.analysis.levels import Joined, join, open_run, runs_in
from components.analysis.recovery import recovery
from components.analysis.stages import SHORTEST, STAGES, Stages, find_stages
from components.analysis.towers import open_tower
from components.files import atomic_write, write_json

SCHEMA = 1


@dataclass(frozen=True)
class Plan:
    """What to look at.

    Attributes:
        towers: paths or names; figures of single images are of the first.
        images: to look at.
        choices: codecs and their qualities, the first one that of Fig. 5.
        examples: how many images are shown singly: the first ones.
        run: a checkout with a finished run whose scores are joined; None: no scores.
        batch: images that go through a tower together.
        workers: processes.
        replicates: of the bootstrap over images.
        seed: of the resamples.
    """

    towers: tuple[str, ...]
    images: Images
    choices: tuple[Choice, ...]
    examples: int = 4
    run: Path | None = None
    batch: int = 4
    workers: int = 1
    replicates: int = 1000
    seed: int = 0


def write(plan: Plan, out: Path) -> dict[str, Any]:
    """Measure, draw, and write all of it into `out`, an empty folder.

    Returns:
        summary.json.

    Raises:
        CotamError: a tower, a codec, an image or the run cannot be used.
    """
    runs = runs_in(plan.run) if plan.run is not None else []
    for scores in runs:  # before anything slow
        open_run(scores, plan.run)
    looked = []
    for tower in plan.towers:
        analysis = analyse(tower, plan.images, plan.choices, batch=plan.batch, workers=plan.workers)
        looked.append((analysis, _stages(analysis, plan)))
    joined = [join(scores, plan.run, plan.towers[0], plan.replicates, plan.seed, plan.workers) for scores in runs]

    analysis, stages = looked[0]
    _write_curves(looked, plan, out)
    shown = _shown(analysis)
    places = range(min(plan.examples, len(plan.images)))
    compressors, four = Compressors(plan.choices), map_figures.four_layers(analysis.layers, stages)
    kept = keep(open_tower(plan.towers[0]), plan.images, places, compressors, analysis.settings, shown, four)
    _write_pictures(analysis, stages, kept, shown, out)
    for one in joined:
        level_figures.figure_levels(one, stages, out, f"levels-{one.codec}-{one.mllm}")
        _write_points(one, out / f"levels-{one.codec}-{one.mllm}-points.csv")
    atomic_write(out / "page.html", page.render(analysis, stages, kept))

    found = {one.tower: their.to_json() if their else None for one, their in looked}
    write_json(out / "stages.json", found)
    summary = _summary(looked, joined, plan)
    write_json(out / "summary.json", summary)
    return summary


def _stages(analysis: Analysis, plan: Plan) -> Stages | None:
    if analysis.layers < STAGES * SHORTEST:
        return None
    raw = {name: values_IVL[:, 0] for name, values_IVL in analysis.values.items()}
    return find_stages(raw, plan.replicates, plan.seed)


def _shown(analysis: Analysis) -> int:
    """The setting whose pictures stand beside the raw ones: of the first codec the one of fewest bits."""
    return analysis.strongest(analysis.codecs[0]) if analysis.codecs else 0


def _write_curves(looked: Sequence[curve_figures.Looked], plan: Plan, out: Path) -> None:
    first = plan.choices[0].name if plan.choices else None
    curve_figures.figure_5(looked[0], out, first)
    curve_figures.figure_20(looked, out)
    if first:
        curve_figures.figure_21(looked, out)
    curve_figures.figure_shares(looked[0], out)
    curve_figures.figure_summary(looked[0], out)
    rows = (row for analysis, _ in looked for row in curve_figures.table(analysis))
    write_csv(out / "curves.csv", curve_figures.HEADER, rows)


def _write_pictures(analysis: Analysis, stages: Stages | None, kept: Sequence[Kept], shown: int, out: Path) -> None:
    setting = analysis.settings[shown] if analysis.settings else None
    name = f"{setting.method} {setting.quality}" if setting else ""
    flow_figures.figure_3(kept[0], analysis.layout, stages, out)
    flow_figures.figure_26(kept[0], analysis.layout, out)
    flow_figures.figure_26_averaged(analysis, out)
    map_figures.figure_4(kept[0], analysis.layout, stages, name, shown, out)
    map_figures.figure_24(kept, analysis.layout, name, shown, out)
    map_figures.figure_25(kept, analysis.layout, name, shown, out)


def _write_points(joined: Joined, path: Path) -> None:
    """What the correlations are of: a row per setting."""
    header = ["method", "quality", "bpp", *(f"loss_{level}" for level in joined.loss)]
    header += [f"similarity_{state - 1}" for state in range(joined.similarity_SL.shape[1])]
    rows = [
        [setting.method, setting.quality, joined.bpp_S[place], *points, *joined.similarity_SL[place]]
        for place, (setting, *points) in enumerate(zip(joined.settings, *joined.loss.values(), strict=True))
    ]
    write_csv(path, header, rows)


def _summary(looked: Sequence[curve_figures.Looked], joined: Sequence[Joined], plan: Plan) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "images": {"source": plan.images.source, "count": len(plan.images)},
        "bootstrap": plan.replicates,
        "towers": {analysis.tower: _tower(analysis, stages, plan) for analysis, stages in looked},
        "levels": [
            {
                "codec": one.codec,
                "mllm": one.mllm,
                "images": one.images,
                "settings": len(one.settings),
                "correlations": one.correlations,
            }
            for one in joined
        ],
    }


def _tower(analysis: Analysis, stages: Stages | None, plan: Plan) -> dict[str, Any]:
    settings = {}
    for place, setting in enumerate(analysis.settings):
        curve = recovery(analysis.similarity_ISL[:, place], stages, plan.replicates, plan.seed)
        settings.setdefault(setting.method, {})[setting.quality] = {"bpp": float(analysis.bpp[place]), **curve}
    raw = {name: values_IVL[:, 0].mean(0) for name, values_IVL in analysis.values.items()}
    return {
        "layers": analysis.layers,
        "grid": list(analysis.layout.grid),
        "cls": bool(analysis.layout.cls),
        "even_distance": analysis.layout.even_distance,
        "stages": stages.to_json() if stages else None,
        "raw": {name: [float(value) for value in curve] for name, curve in raw.items() if np.isfinite(curve).all()},
        "similarity": settings,
    }
