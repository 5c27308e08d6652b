"""What Bridge learns from beside features: labels (Kao et al., ICLR 2025, section 3.3; `bridge.py` says how)."""

from torch import Tensor
from torch.nn import functional as F


def label_loss(embedding_BE: Tensor, classes_KE: Tensor, labels_B: Tensor, scale: float) -> Tensor:
    """L_ce: how surely an image's embedding names its class.

    Args:
        embedding_BE: image embeddings of the encoder, of any length.
        classes_KE: text embeddings of the classes, of length 1.
        labels_B: int64, each image's class.
        scale: the CLIP's own, what cosines are multiplied by.
    """
    cosines_BK = F.normalize(embedding_BE.float(), dim=1) @ classes_KE.T
    return F.cross_entropy(scale * cosines_BK, labels_B)
