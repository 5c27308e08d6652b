"""The page: choose an image, a layer and a token, and see where it looks and who looks at it, raw and compressed.

One HTML file that fetches nothing. It holds the kept attention in a byte per number: the square root of its share of
the layer's largest, so that small attention keeps its digits.
"""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from components.analysis.collect import Analysis
from components.analysis.keep import Kept, coarse_layout
from components.analysis.stages import Stages
from components.evaluation.streams import Setting
from components.reporting.pictures import RAMP, data_uri

TEMPLATES = Path(__file__).parent / "templates"


def render(analysis: Analysis, stages: Stages | None, examples: Sequence[Kept]) -> str:
    """The whole page, as HTML: equal inputs give equal bytes.

    Args:
        analysis: of the tower.
        stages: of it; None: not found.
        examples: the images that can be chosen, all with the versions of `analysis.settings`.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    data = json.dumps(page_data(analysis, stages, examples), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return environment.get_template("page.html.j2").render(
        tower=analysis.tower,
        css=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        script=Markup((TEMPLATES / "page.js").read_text(encoding="utf-8")),
        data=Markup(data.replace("<", "\\u003c")),  # a name may hold "</script>"
    )


def page_data(analysis: Analysis, stages: Stages | None, examples: Sequence[Kept]) -> dict[str, Any]:
    """What the script works on."""
    layers = sorted(examples[0].attention)
    layout = examples[0].coarse
    return {
        "tower": analysis.tower,
        "cls": layout.cls,
        "grid": list(layout.grid),
        "tokens_per_cell": round(analysis.layout.patches / layout.patches),
        "layers": layers,
        "stages": [stages.stage_of(layer) for layer in layers] if stages else None,
        "ramp": _ramp(),
        "codecs": analysis.codecs,
        "images": [_image(kept, analysis, analysis.settings, layers) for kept in examples],
    }


def _image(kept: Kept, analysis: Analysis, settings: Sequence[Setting], layers: Sequence[int]) -> dict[str, Any]:
    versions = [{"codec": None, "label": "raw", "bpp": None}]
    versions += [
        {"codec": setting.method, "label": f"{setting.method} {setting.quality}", "bpp": round(rate, 4)}
        for setting, rate in zip(settings, kept.bpp, strict=True)
    ]
    pool_UT, _ = coarse_layout(analysis.layout)
    mean_MN = (pool_UT / pool_UT.sum(-1, keepdim=True)).numpy()[analysis.layout.cls :, analysis.layout.cls :]
    for place, version in enumerate(versions):
        attention_LTT = np.stack([kept.attention[layer][place] for layer in layers])
        tops_L = attention_LTT.max((1, 2))
        steps = np.sqrt(attention_LTT / np.maximum(tops_L, 1e-12)[:, None, None])
        version["attention"] = _base64(np.rint(255 * steps).astype(np.uint8))
        version["tops"] = [float(f"{top:.6g}") for top in tops_L]
        version["src"] = data_uri(kept.seen_VHW3[place])
        if place:
            similarity_LM = kept.similarity_SLN[place - 1][[layer + 1 for layer in layers]] @ mean_MN.T
            version["similarity"] = _base64(np.rint(32767 * np.clip(similarity_LM, -1, 1)).astype("<i2"))
    return {"name": kept.name, "versions": versions}


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode()


def _ramp() -> list[list[int]]:
    """The colour map in 33 steps."""
    import matplotlib

    return np.rint(255 * matplotlib.colormaps[RAMP](np.linspace(0, 1, 33))[:, :3]).astype(int).tolist()
