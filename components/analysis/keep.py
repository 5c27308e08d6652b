"""A few images in full: what figures and the page show of single images, for which means over images are no help.

Of these, flows, maps and features are kept, and the attention itself, on a coarse grid where the tower's is large.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil

import numpy as np
import torch
from torch import Tensor

from components.analysis.compressors import Compressors
from components.analysis.flow import Layout, flow_of
from components.analysis.images import Images
from components.analysis.similarity import token_similarity
from components.analysis.towers import Tower
from components.evaluation.streams import Setting

MOST_LAYERS = 12
"""Layers of which attention and features are kept: at even steps, the first and the last among them."""
COARSE = 12
"""Cells per side at most, for kept attention."""


@dataclass
class Kept:
    """One image in V versions, the raw one first.

    Attributes:
        name: of the image.
        seen_VHW3: what the tower is shown, uint8.
        bpp: bits per pixel of each setting.
        inflow_VLT, outflow_VLT: arg-maxima (`Flow`).
        cls_attention_VLN, summary_VLN: as in `Flow`.
        similarity_SLN: to the raw image, of the states 0 to L.
        attention: by layer: float32 (V, T', T') on the grid `coarse`, its rows as a mean over the queries in a cell.
        features: by state: float32 (2, N, D), raw and compressed by the setting that figures show.
        coarse: the layout of `attention`.
    """

    name: str
    seen_VHW3: np.ndarray
    bpp: list[float]
    coarse: Layout
    inflow_VLT: np.ndarray
    outflow_VLT: np.ndarray
    cls_attention_VLN: np.ndarray
    summary_VLN: np.ndarray
    similarity_SLN: np.ndarray
    attention: dict[int, np.ndarray] = field(default_factory=dict)
    features: dict[int, np.ndarray] = field(default_factory=dict)


def kept_layers(layers: int) -> list[int]:
    """Which layers are shown of L: all of up to `MOST_LAYERS`."""
    return sorted({round(float(place)) for place in np.linspace(0, layers - 1, min(layers, MOST_LAYERS))})


def keep(
    tower: Tower,
    images: Images,
    places: Sequence[int],
    compressors: Compressors,
    settings: Sequence[Setting],
    shown: int,
    also: Sequence[int] = (),
) -> list[Kept]:
    """Look at single images in full.

    Args:
        tower: to look into.
        images: to choose from.
        places: of the chosen ones.
        compressors: that make `settings`.
        settings: S of them.
        shown: the place of the setting whose features are kept.
        also: layers whose features are kept beside those of `kept_layers`.
    """
    return [
        _keep(tower, images.names[place], images.loads[place](), compressors, settings, shown, also)
        for place in places
    ]


def _keep(tower: Tower, name: str, raw: np.ndarray, compressors: Compressors, settings, shown: int, also) -> Kept:
    coded = [compressors.code(setting, [raw]) for setting in settings]
    pixels_V3HW = tower.geometry.pixels([raw, *(one.pictures[0] for one in coded)])
    versions, layers, layout = len(pixels_V3HW), tower.layers, tower.layout
    pool_UT, coarse = coarse_layout(layout)
    wanted = set(kept_layers(layers))
    kept = Kept(
        name=name,
        seen_VHW3=_as_seen(pixels_V3HW, tower),
        bpp=[one.bits[0] / (raw.shape[0] * raw.shape[1]) for one in coded],
        coarse=coarse,
        inflow_VLT=np.zeros((versions, layers, layout.tokens), np.int32),
        outflow_VLT=np.zeros((versions, layers, layout.tokens), np.int32),
        cls_attention_VLN=np.zeros((versions, layers, layout.patches), np.float32),
        summary_VLN=np.zeros((versions, layers, layout.patches), bool),
        similarity_SLN=np.zeros((versions - 1, layers + 1, layout.patches), np.float32),
    )

    def on_attention(layer: int, attention_VTT: Tensor) -> None:
        flow = flow_of(attention_VTT, layout)
        kept.inflow_VLT[:, layer], kept.outflow_VLT[:, layer] = flow.inflow_BT.cpu(), flow.outflow_BT.cpu()
        kept.cls_attention_VLN[:, layer] = flow.cls_attention_BN.cpu()
        kept.summary_VLN[:, layer] = flow.summary_BN.cpu()
        if layer in wanted:
            mean_UT = (pool_UT / pool_UT.sum(-1, keepdim=True)).to(attention_VTT)
            kept.attention[layer] = (mean_UT @ attention_VTT @ pool_UT.T.to(attention_VTT)).float().cpu().numpy()

    def on_state(state: int, tokens_VTD: Tensor) -> None:
        if versions > 1:
            similarity_ST = token_similarity(tokens_VTD[0], tokens_VTD[1:]).cpu().numpy()
            kept.similarity_SLN[:, state] = similarity_ST[:, layout.cls :]
        if state - 1 in wanted or state - 1 in also:
            both = [0, 1 + shown] if versions > 1 else [0]
            kept.features[state] = tokens_VTD[both, layout.cls :].float().cpu().numpy()

    tower.look(pixels_V3HW, on_attention, on_state)
    return kept


def coarse_layout(layout: Layout) -> tuple[Tensor, Layout]:
    """Which tokens fall together on a grid of at most `COARSE` cells per side: (T', T) of 0 and 1, and the grid."""
    step = ceil(max(layout.grid) / COARSE)
    grid = tuple(ceil(side / step) for side in layout.grid)
    coarse = Layout(layout.cls, (grid[0], grid[1]))
    pool_UT = torch.zeros(coarse.tokens, layout.tokens, dtype=torch.float64)
    pool_UT[: layout.cls, : layout.cls] = 1
    rows, columns = torch.meshgrid(*(torch.arange(side) // step for side in layout.grid), indexing="ij")
    cell_N = (rows * grid[1] + columns).flatten()
    pool_UT[layout.cls + cell_N, layout.cls + torch.arange(layout.patches)] = 1
    return pool_UT, coarse


def _as_seen(pixels_V3HW: Tensor, tower: Tower) -> np.ndarray:
    """Normalised pixels as a picture again: uint8 (V, H, W, 3)."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (tower.geometry.mean, tower.geometry.std))
    scaled = ((pixels_V3HW * std + mean) * 255).round().clamp(0, 255)
    return scaled.permute(0, 2, 3, 1).to(torch.uint8).numpy()
