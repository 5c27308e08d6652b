"""The loss that teaches a small tower to see: at every patch, what stands there and what the whole image is.

Question answering alone teaches a tower of this size almost nothing. Its read-outs are thrown away after training.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.scenes.labels import IMAGE_CLASSES, PATCH_CLASSES
from pipelines.pretrain.tiles import GRID, IGNORED

WHOLE = {f"image_{name}": count for name, count in IMAGE_CLASSES.items()}
PATCH_TARGETS = {**PATCH_CLASSES, "row": GRID, "column": GRID, **WHOLE}
"""What every patch is asked for: what stands in it, where it is, and, since an MLLM reads no CLS, the whole image."""
WEIGHTS = {"texture": 3.0, "row": 0.5, "column": 0.5, **dict.fromkeys(WHOLE, 0.5), "image_largest": 3.0}


class DenseLoss(nn.Module):
    """A linear read-out of patches of `width` features."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.patch = nn.Linear(width, sum(PATCH_TARGETS.values()))

    def forward(
        self, tokens_BND: Tensor, patch_labels_BNk: Tensor, image_labels_Bm: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """The loss over patches, and for each target the share of patches read rightly where there is something.

        Labels are int64; an IGNORED one counts for neither.
        """
        scores = self.patch(self.norm(tokens_BND)).float().split(list(PATCH_TARGETS.values()), -1)
        rows = torch.arange(GRID, device=tokens_BND.device)
        places = torch.cartesian_prod(rows, rows).expand(len(tokens_BND), -1, -1)
        whole = image_labels_Bm[:, None].expand(-1, tokens_BND.shape[1], -1)
        targets = torch.cat([patch_labels_BNk, places, whole], -1).flatten(0, 1).T
        loss, right = 0.0, []
        for name, score, target in zip(PATCH_TARGETS, scores, targets, strict=True):
            score = score.flatten(0, 1)
            weight, named = score.new_ones(score.shape[-1]), torch.ones_like(target, dtype=torch.bool)
            if name in PATCH_CLASSES:
                weight[0], named = 0.25, target > 0
            read = F.cross_entropy(score, target, weight=weight, ignore_index=IGNORED)
            loss = loss + WEIGHTS.get(name, 1.0) * read
            right.append(((score.argmax(-1) == target) & named).sum() / named.sum())
        return loss / sum(WEIGHTS.get(name, 1.0) for name in PATCH_TARGETS), right
