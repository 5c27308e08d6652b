"""The numbers of a batch: raw images beside their compressed versions, through the tower together.

Tokens are compared to the raw image's in the layer that makes them; nothing of a layer is left when the next one
begins, but a few numbers per image and sums over images. Memory depends on neither the number of images nor, for the
attention, on the number of layers.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from components.analysis.flow import NAMES, flow_of
from components.analysis.similarity import token_similarity
from components.analysis.towers import Tower
from components.analysis.watch import watching


@dataclass(frozen=True)
class Measured:
    """What is left of B images.

    Attributes:
        values_BVLK: the numbers of `flow.NAMES`, float64.
        similarity_BSL: mean over patches of the similarity to the raw image, of the states 0 to L: (B, S, L + 1).
        cls_similarity_BSL: of CLS; NaN in a tower without one.
    """

    values_BVLK: np.ndarray
    similarity_BSL: np.ndarray
    cls_similarity_BSL: np.ndarray


class Measure:
    """Measures images in `versions` versions each: the raw image first.

    Attributes:
        sums: over the images so far, by name: `received` and `summary` (V, L, N), `inflow` and `outflow` (V, L, T), how
            often a token was the other end of a patch's arg-max, `similarity` (S, L + 1, N). float64, added image by
            image, so that batches do not matter.
    """

    def __init__(self, tower: Tower, versions: int):
        self.tower = tower
        self.versions = versions
        layers, layout = len(tower.layers), tower.layout
        self.sums = {
            "received": np.zeros((versions, layers, layout.patches)),
            "summary": np.zeros((versions, layers, layout.patches)),
            "inflow": np.zeros((versions, layers, layout.tokens)),
            "outflow": np.zeros((versions, layers, layout.tokens)),
            "similarity": np.zeros((versions - 1, layers + 1, layout.patches)),
        }

    def __call__(self, pixels_BV3HW: Tensor) -> Measured:
        """Run the tower on all versions of some images; pixels as `tower.geometry` makes them."""
        images, layers = len(pixels_BV3HW), len(self.tower.layers)
        layout, others = self.tower.layout, self.versions - 1
        values = np.zeros((images, self.versions, layers, len(NAMES)))
        similarity = np.zeros((images, others, layers + 1))
        cls_similarity = np.full((images, others, layers + 1), np.nan)

        def on_attention(layer: int, attention_BTT: Tensor) -> None:
            flow = flow_of(attention_BTT, layout)
            for place, name in enumerate(NAMES):
                values[:, :, layer, place] = flow.values[name].cpu().numpy().reshape(images, self.versions)
            for name, maps in (("received", flow.received_BN), ("summary", flow.summary_BN)):
                _add(self.sums[name][:, layer], maps.cpu().numpy(), self.versions)
            for name, ends_BT in (("inflow", flow.inflow_BT), ("outflow", flow.outflow_BT)):
                _add(self.sums[name][:, layer], _counts(ends_BT[:, layout.cls :], layout.tokens), self.versions)

        def on_state(state: int, tokens_BTD: Tensor) -> None:
            for place, versions_VTD in enumerate(tokens_BTD.unflatten(0, (images, self.versions))):
                if others:
                    kept_ST = token_similarity(versions_VTD[0], versions_VTD[1:]).cpu().numpy()
                    similarity[place, :, state] = kept_ST[:, layout.cls :].mean(-1)
                    if layout.cls:
                        cls_similarity[place, :, state] = kept_ST[:, 0]
                    self.sums["similarity"][:, state] += kept_ST[:, layout.cls :]

        with watching(self.tower, on_attention, on_state):
            self.tower.forward(pixels_BV3HW.flatten(0, 1))
        return Measured(values, similarity, cls_similarity)


def _add(sum_VX: np.ndarray, maps_BX: np.ndarray, versions: int) -> None:
    """Add image by image."""
    for maps_VX in maps_BX.reshape(-1, versions, maps_BX.shape[-1]):
        sum_VX += maps_VX


def _counts(ends_BN: Tensor, tokens: int) -> np.ndarray:
    """How often each token is one of the ends: (B, T)."""
    counts_BT = torch.zeros(len(ends_BN), tokens, dtype=torch.float64, device=ends_BN.device)
    return counts_BT.scatter_add_(1, ends_BN, torch.ones_like(ends_BN, dtype=torch.float64)).cpu().numpy()
