"""The units of an adapter: what is measured is what was made."""

import torch

from components.training.units import measure_units


def test_every_unit_is_what_it_says():
    torch.manual_seed(0)
    quality_map = torch.tensor([[1, 1], [5, 5]]).repeat_interleave(2, 0).repeat_interleave(2, 1).expand(200, 4, 4)
    lost = torch.where(quality_map == 1, 2.0, 0.5).flatten(1)[..., None] * torch.randn(200, 16, 3)
    y_hat = torch.randn(200, 6, 4, 4) * torch.arange(1.0, 7)[:, None, None] + 3
    batch = {"y_hat": y_hat, "quality_map": quality_map, "patches": 1 + lost, "decoded": torch.ones(200, 16, 3)}
    units = measure_units(batch, (4, 4), 10)
    assert torch.allclose(units.latent_mean_C, torch.full((6,), 3.0), atol=0.5)
    assert torch.allclose(units.latent_std_C, torch.arange(1.0, 7), rtol=0.05)
    whole = ((4 + 0.25) / 2) ** 0.5
    assert torch.allclose(units.output_std_D, torch.full((3,), whole), rtol=0.05)
    low, high = 2 / whole, 0.5 / whole
    # Beyond what was seen its nearest neighbour, between two qualities a straight line.
    expected = [low, low, *(low + (high - low) * step / 4 for step in (1, 2, 3)), *[high] * 5]
    assert torch.allclose(units.quality_scale_Q, torch.tensor(expected), rtol=0.05)


def test_a_patch_between_two_qualities_counts_for_both():
    quality_map = torch.tensor([[[0, 9], [0, 9]]])
    batch = {"y_hat": torch.ones(1, 6, 2, 2), "quality_map": quality_map}
    batch |= {"patches": torch.ones(1, 1, 3), "decoded": torch.zeros(1, 1, 3)}
    assert torch.allclose(measure_units(batch, (1, 1), 10).quality_scale_Q, torch.ones(10))
