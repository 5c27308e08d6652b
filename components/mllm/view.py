"""What an MLLM is shown: an image's pixels and what the adapter adds to their patch embeddings."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class View:
    """One image as it enters an MLLM. Compared by identity: ask many questions of one View and it is seen once."""

    pixels_3HW: Tensor
    """float32, normalised as the MLLM's geometry makes them."""
    residual_ND: Tensor | None = None
    """float32, the adapter's A(y^), added to the N patch embeddings of the MLLM's tower; None adds nothing."""
    alone: bool = False
    """The tower sees A(y^) in place of the patch embeddings, and nothing of the picture (paper, Fig. 10, w/o Rec.)."""
