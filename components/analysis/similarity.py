"""How much of a token survives compression: its cosine similarity to the raw image's token (paper, Fig. 4c and 5c)."""

import torch
from torch import Tensor


def token_similarity(raw_BTD: Tensor, others_BSTD: Tensor) -> Tensor:
    """Cosine similarity of every token of compressed images to the raw image's, in float64: (B, S, T) in [-1, 1].

    There may be no B, or several such dimensions. A token that is zero has no direction: its similarity is 1 to another
    zero, and 0 to anything else.
    """
    raw_B1TD, others_BSTD = raw_BTD.double().unsqueeze(-3), others_BSTD.double()
    dot_BST = torch.linalg.vecdot(raw_B1TD, others_BSTD)
    raw_B1T, others_BST = (torch.linalg.vector_norm(tokens, dim=-1) for tokens in (raw_B1TD, others_BSTD))
    norms_BST = raw_B1T * others_BST
    similarity_BST = torch.where(norms_BST > 0, dot_BST / norms_BST.clamp_min(1e-300), 0.0)
    return torch.where((raw_B1T == 0) & (others_BST == 0), 1.0, similarity_BST).clamp_(-1, 1)
