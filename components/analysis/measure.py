"""The numbers of a batch: raw images beside their compressed versions, through the tower together.

Tokens are compared to the raw image's in the layer that makes them; nothing of a layer is left when the next one
begins, but a few numbers per token and, at the end, per image. Memory depends on neither the number of images nor, for
the attention, on the number of layers.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from components.analysis.flow import NAMES, Ends, ends_of, flow_from
from components.analysis.similarity import token_similarity
from components.analysis.towers import Tower


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
        layers, layout = tower.layers, tower.layout
        self.sums = {
            "received": np.zeros((versions, layers, layout.patches)),
            "summary": np.zeros((versions, layers, layout.patches)),
            "inflow": np.zeros((versions, layers, layout.tokens)),
            "outflow": np.zeros((versions, layers, layout.tokens)),
            "similarity": np.zeros((versions - 1, layers + 1, layout.patches)),
        }

    def __call__(self, pixels_BV3HW: Tensor) -> Measured:
        """Run the tower on all versions of some images; pixels as `tower.geometry` makes them."""
        images, layout = len(pixels_BV3HW), self.tower.layout
        seen, kept = [], []

        def on_attention(_: int, attention_BTT: Tensor) -> None:
            seen.append(ends_of(attention_BTT, layout))

        def on_state(_: int, tokens_BTD: Tensor) -> None:
            if self.versions == 1:  # nothing to compare with
                kept.append(torch.zeros(images, 0, layout.tokens, dtype=torch.float64))
                return
            tokens_BVTD = tokens_BTD.unflatten(0, (images, self.versions))
            kept.append(token_similarity(tokens_BVTD[:, 0], tokens_BVTD[:, 1:]).cpu())

        self.tower.look(pixels_BV3HW.flatten(0, 1), on_attention, on_state)
        flow = flow_from(Ends(*(torch.cat(parts) for parts in zip(*seen, strict=True))), layout)

        def by_image(values_X: Tensor) -> np.ndarray:
            """Layer by layer, image by image -> (B, V, L, ...)."""
            return values_X.cpu().unflatten(0, (-1, images, self.versions)).movedim(0, 2).numpy()

        for name, maps in (("received", flow.received_BN), ("summary", flow.summary_BN)):
            _add(self.sums[name], by_image(maps))
        for name, ends_BT in (("inflow", flow.inflow_BT), ("outflow", flow.outflow_BT)):
            _add(self.sums[name], by_image(_counts(ends_BT[:, layout.cls :], layout.tokens)))
        similarity_BSLT = torch.stack(kept, 2).numpy()
        _add(self.sums["similarity"], similarity_BSLT[..., layout.cls :])
        return Measured(
            values_BVLK=np.stack([by_image(flow.values[name]) for name in NAMES], -1),
            similarity_BSL=similarity_BSLT[..., layout.cls :].mean(-1),
            cls_similarity_BSL=similarity_BSLT[..., 0] if layout.cls else np.full(similarity_BSLT.shape[:-1], np.nan),
        )


def _add(sums: np.ndarray, maps_B: np.ndarray) -> None:
    """Add image by image."""
    for maps in maps_B:
        sums += maps


def _counts(ends_BN: Tensor, tokens: int) -> Tensor:
    """How often each token is one of the ends: (B, T), float64."""
    counts_BT = torch.zeros(len(ends_BN), tokens, dtype=torch.float64, device=ends_BN.device)
    return counts_BT.scatter_add_(1, ends_BN, torch.ones_like(ends_BN, dtype=torch.float64))
