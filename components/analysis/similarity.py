"""How much of a token survives compression: its cosine similarity to the raw image's token (paper, Fig. 4c and 5c)."""

import torch
from torch import Tensor


def token_similarity(raw_TD: Tensor, others_STD: Tensor) -> Tensor:
    """Cosine similarity of every token of compressed images to the raw image's, in float64: (S, T) in [-1, 1].

    A token that is zero has no direction: its similarity is 1 to another zero, and 0 to anything else.
    """
    raw_TD, others_STD = raw_TD.double(), others_STD.double()
    dot_ST = (raw_TD * others_STD).sum(-1)
    norms_ST = raw_TD.norm(dim=-1) * others_STD.norm(dim=-1)
    both_zero_ST = (raw_TD == 0).all(-1) & (others_STD == 0).all(-1)
    similarity_ST = torch.where(norms_ST > 0, dot_ST / norms_ST.clamp_min(1e-300), 0.0)
    return torch.where(both_zero_ST, 1.0, similarity_ST).clamp(-1, 1)
