"""What an MLLM is shown: an image's pixels and what a method adds to them, or what stands in their place."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Entry:
    """Tokens with which the MLLM's tower is entered past its first layers (Bridge's transform-neck)."""

    tokens_TD: Tensor
    """float32, the class token first, then one per patch."""
    layer: int
    """Which hidden state of the tower they stand for: 0 is its encoder's input."""


@dataclass(frozen=True, eq=False)
class View:
    """One image as it enters an MLLM. Compared by identity: ask many questions of one View and it is seen once."""

    pixels_3HW: Tensor | None
    """float32, normalised as the MLLM's geometry makes them; None where `entry` stands for them."""
    residual_ND: Tensor | None = None
    """float32, the adapter's A(y^), added to the N patch embeddings of the MLLM's tower; None adds nothing."""
    alone: bool = False
    """The tower sees A(y^) in place of the patch embeddings, and nothing of the picture (paper, Fig. 10, w/o Rec.)."""
    entry: Entry | None = None
    """Where the tower is entered instead; pixels and residual then count for nothing."""
