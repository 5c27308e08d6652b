"""Start weights: a hierarchical principal component transform of the training images.

At random weights an autoencoder of this depth spends its first hours finding a basis. Here every strided
convolution starts as the orthonormal principal components of the 2 x 2 blocks that it sees, its counterpart in the
synthesis as the transpose, and everything else adds nothing yet: training starts from a working block-transform codec.
"""

import torch
from torch import Tensor

from components.codec.transforms import VariableRate


def principal_blocks(features_BCHW: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """Principal components of 2 x 2 blocks.

    Returns:
        basis (keep, C, 2, 2), orthonormal rows, strongest first (fewer rows when there are not so many dimensions),
        and their second moments (not variances: nothing is subtracted).
    """
    channels = features_BCHW.shape[1]
    blocks_BFL = torch.nn.functional.unfold(features_BCHW, 2, stride=2)
    flat_NF = blocks_BFL.transpose(1, 2).reshape(-1, 4 * channels).double()
    moments, vectors = torch.linalg.eigh(flat_NF.T @ flat_NF / len(flat_NF))
    basis = vectors.flip(1).T[:keep].reshape(-1, channels, 2, 2)
    return basis.float(), moments.flip(0)[:keep]


@torch.no_grad()
def start_from_principal_components(model: VariableRate, images_B3HW: Tensor) -> None:
    """Set the strided convolutions of an untrained model; images in [0, 1]."""
    features = images_B3HW - 0.5
    for down, up in zip(model.down, reversed(model.up), strict=True):
        basis, moments = principal_blocks(features, down.out_channels)
        used, inputs = basis.shape[:2]
        corner = (down.kernel_size[0] - 1) // 2  # where a 2 x 2 block lies in the kernel, for both directions
        inside = slice(corner, corner + 2)
        down.weight[:used] = 0
        down.weight[:used, :inputs, inside, inside] = basis
        up.weight.mul_(0)
        up.weight[:used, :inputs, inside, inside] = basis
        down.bias.zero_()
        up.bias.zero_()
        features = torch.nn.functional.conv2d(features, basis, stride=2)
    model.entropy.log_spread_C.copy_(moments.clamp(min=1e-8).sqrt().log().float())
