"""The multi-level fidelity loss: means over elements (design, section 5), zero where nothing was lost."""

import torch

from components.adapter.losses import high_loss, low_loss


def test_losses_are_means_over_elements():
    zeros, ones = torch.zeros(2, 3, 4), torch.ones(2, 3, 4)
    assert low_loss(3 * ones, ones, zeros) == 4
    assert high_loss(3 * ones, ones) == 4


def test_a_perfect_residual_leaves_no_low_loss():
    original, decoded = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    assert low_loss(original, decoded, original - decoded) < 1e-12


def test_bfloat16_inputs_are_compared_in_float32():
    original = torch.randn(2, 3, 4)
    assert low_loss(original, torch.zeros(2, 3, 4), original.bfloat16()).dtype == torch.float32
    assert high_loss(original.bfloat16(), original).dtype == torch.float32
