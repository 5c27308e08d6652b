"""The multi-level fidelity loss (paper, section 3.3, equation 1): both ends of the feature hierarchy are held.

E is the tower's patch embedding, F the token features that the MLLM consumes, A the adapter. Both losses are means
over all elements, so that lambda_low and lambda_high mean the same for every tower.
"""

from torch import Tensor


def low_loss(patches_BND: Tensor, decoded_BND: Tensor, residual_BND: Tensor) -> Tensor:
    """L_low = |E(x) - (E(x^) + A(y^))|^2: structure, held where the tower begins.

    Args:
        patches_BND: E(x), patch embeddings of the original image.
        decoded_BND: E(x^), those of the decoded image.
        residual_BND: A(y^), what the adapter adds.
    """
    return (patches_BND.float() - (decoded_BND.float() + residual_BND.float())).square().mean()


def high_loss(features_BND: Tensor, seen_BND: Tensor) -> Tensor:
    """L_high = |F(x) - F(x^, y^)|^2: meaning, held where the MLLM reads.

    Args:
        features_BND: F(x), what the MLLM would read of the original.
        seen_BND: F(x^, y^), what it reads of the decoded image with the adapter's help.
    """
    return (features_BND.float() - seen_BND.float()).square().mean()
