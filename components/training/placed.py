"""How a training picture stands in an MLLM's prompt: as the MLLM's own family shows a picture of its tower's size.

Shapes: B pictures, T tokens of the tower, D its width, n tokens of a picture for the language model, E its width.
"""

import torch
from torch import Tensor

from components.errors import CotamError
from components.mllm import Kind, Mllm
from components.mllm.view import View
from components.mllm.visual import Visual


class Placed:
    """Pictures of the tower's own size, as training has them (components/training/pixel_views.py).

    An InternVL shows such a picture in one view, a LLaVA-OneVision in two, the whole and its only tile, which are then
    the same: the tower is run once.

    Raises:
        CotamError: the MLLM would cut such a picture, so that its views differ.
    """

    def __init__(self, mllm: Mllm):
        self.mllm = mllm
        size = mllm.tower.geometry.output_size
        windows = getattr(mllm.family.framing(Kind.IMAGE, size), "windows", None)
        if any((window.resized, window.offset) != (size, (0, 0)) for window in windows or ()):
            raise CotamError(
                f"This MLLM cuts pictures of {size[0]} x {size[1]} pixels into tiles; methods that learn from its "
                "answers need one that shows a picture of its tower's size whole."
            )
        self.views = len(windows or (None,))
        self.visual = Visual(Kind.IMAGE, ((View(None),) * self.views,), (size,))
        rows, columns = mllm.tower.grid
        with torch.no_grad():
            empty_1TD = torch.zeros(1, mllm.tower.cls + rows * columns, mllm.tower.width, device=mllm.model.device)
            self.tokens = self.embed(empty_1TD).shape[1]

    def embed(self, features_BTD: Tensor) -> Tensor:
        """What the language model reads of the tower's states at its feature layer, CLS first: (B, n, E)."""
        family = self.mllm.family
        each = [one_1nE.expand(self.views, -1, -1) for one_1nE in family.project(features_BTD)[:, None]]
        return torch.stack([family.arrange(self.visual, [one_VnE])[0] for one_VnE in each])

    def prompt(self, question: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ids of the prompt about one picture up to its last token, and of the rest."""
        placeholder = self.mllm.family.placeholder(self.mllm.processor, self.visual, self.tokens)
        return self.mllm.prompts.ids(question, Kind.IMAGE, (placeholder,))
