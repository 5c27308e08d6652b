"""The latent adapter: silent at the start, one for all qualities, the same after saving."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from components.adapter import AdapterConfig, LatentAdapter
from components.errors import CotamError
from components.vision import Geometry

CONFIG = AdapterConfig(latent_channels=6, feature_dim=10, grid=(4, 4), width=16, heads=2)


def talking(config: AdapterConfig = CONFIG) -> LatentAdapter:
    """An adapter whose last projection has learned something."""
    torch.manual_seed(0)
    adapter = LatentAdapter(config).eval()
    torch.nn.init.normal_(adapter.out_projection.weight)
    torch.nn.init.normal_(adapter.quality.steps_QW)
    return adapter


def test_a_new_adapter_adds_nothing_but_learns():
    adapter = LatentAdapter(CONFIG)
    output = adapter(torch.randn(2, 6, 4, 4), torch.zeros(2, 4, 4, dtype=torch.int64))
    assert output.shape == (2, 16, 10)
    assert not output.any()
    (output - 1).square().mean().backward()
    assert adapter.out_projection.weight.grad.abs().max() > 0


def test_more_blocks_are_added_to_the_first(tmp_path):
    deep = CONFIG.model_copy(update={"blocks": 3})
    torch.manual_seed(0)
    one = LatentAdapter(CONFIG)
    torch.manual_seed(0)
    three = LatentAdapter(deep)
    shared = three.state_dict()
    assert all(torch.equal(shared[name], tensor) for name, tensor in one.state_dict().items())
    counts = [sum(name.startswith(start) for name in shared) for start in ("block.", "more_blocks.")]
    assert counts[1] == 2 * counts[0]
    inputs = torch.randn(1, 6, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int64)
    talker = talking(deep)
    talker.save(tmp_path / "deep")
    assert torch.equal(LatentAdapter.load(tmp_path / "deep")(*inputs), talker(*inputs))
    one.save(tmp_path / "one")
    assert "blocks" not in (tmp_path / "one/config.json").read_text()  # as adapters always were


def test_an_adapter_may_start_by_saying_something():
    inputs = torch.randn(1, 6, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int64)
    assert LatentAdapter(CONFIG, silent=False)(*inputs).abs().max() > 0


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9))
def test_any_latent_size_reaches_the_towers_grid(height, width):
    adapter = LatentAdapter(CONFIG)
    quality_map = torch.zeros(1, height, width, dtype=torch.int64)
    assert adapter(torch.randn(1, 6, height, width), quality_map).shape == (1, 16, 10)


def test_latents_go_through_the_geometry_of_the_pixels():
    geometry = Geometry(mean=(0.5,) * 3, std=(0.5,) * 3, shortest_edge=64, crop=(64, 64))
    adapter = talking()
    latent, quality_map = torch.randn(1, 6, 4, 4), torch.randint(0, 10, (1, 4, 4))

    def sample(size):
        return lambda features: geometry.sample_latent(features, size, (4, 4))

    plain = adapter(latent, quality_map)
    assert torch.allclose(plain, adapter(latent, quality_map, sample((64, 64))), atol=1e-5)
    # A wide picture is cropped at its centre, so what lies in its margins must not matter much less than not at all.
    wide = torch.randn(1, 6, 4, 8)
    wide[..., 2:6] = latent
    wide_map = torch.nn.functional.pad(quality_map, (2, 2))
    assert adapter(wide, wide_map, sample((64, 128))).shape == plain.shape


def test_quality_of_a_place_matters():
    adapter = talking()
    latent = torch.randn(1, 6, 4, 4)
    low, high = torch.zeros(1, 4, 4, dtype=torch.int64), torch.full((1, 4, 4), 5)
    assert not torch.allclose(adapter(latent, low), adapter(latent, high))


def test_a_quality_never_trained_speaks_like_its_neighbour():
    adapter = talking()
    torch.nn.init.zeros_(adapter.quality.steps_QW[8:])
    latent = torch.randn(1, 6, 4, 4)
    last, unseen = torch.full((1, 4, 4), 7), torch.full((1, 4, 4), 9)
    assert torch.equal(adapter(latent, last), adapter(latent, unseen))


def test_two_threads_find_the_same_gradient_every_time():
    latent, quality_map = torch.randn(32, 6, 8, 8), torch.randint(0, 10, (32, 8, 8))
    adapter, threads = talking(), torch.get_num_threads()

    def gradients():
        adapter.zero_grad()
        adapter(latent, quality_map).square().mean().backward()
        return [parameter.grad.clone() for parameter in adapter.parameters()]

    torch.set_num_threads(2)
    try:
        first = gradients()
        assert all(all(map(torch.equal, first, gradients())) for _ in range(5))
    finally:
        torch.set_num_threads(threads)


def test_scales_undo_the_units_of_the_latent():
    adapter, latent = talking(), torch.randn(1, 6, 4, 4)
    quality_map = torch.ones(1, 4, 4, dtype=torch.int64)
    before = adapter(latent, quality_map)
    factor, shift = torch.tensor([1.0, 10, 100, 0.1, 1, 1]), torch.arange(6.0)
    adapter.set_scales(shift, factor, torch.full((10,), 3.0), torch.arange(10.0) / 2)
    scaled = latent * factor[:, None, None] + shift[:, None, None]
    assert torch.allclose(adapter(scaled, quality_map), 1.5 * before, atol=1e-3)


def test_what_is_said_has_the_size_of_what_was_lost_at_each_place():
    adapter, latent = talking(), torch.randn(1, 6, 4, 4)
    quality_map = torch.tensor([1, 1, 4, 4]).expand(1, 4, 4)
    before = adapter(latent, quality_map)
    sizes = torch.arange(10.0)
    adapter.set_scales(torch.zeros(6), torch.ones(6), torch.ones(10), sizes)
    assert torch.allclose(adapter(latent, quality_map), before * quality_map.reshape(1, 16, 1), atol=1e-4)


def test_saving_keeps_every_bit(tmp_path):
    adapter = talking()
    adapter.set_scales(torch.randn(6), torch.rand(6) + 0.5, torch.rand(10), torch.rand(10))
    adapter.save(tmp_path / "adapter")
    again = LatentAdapter.load(tmp_path / "adapter")
    assert again.config == CONFIG
    latent, quality_map = torch.randn(2, 6, 4, 4), torch.randint(0, 10, (2, 4, 4))
    assert torch.equal(adapter(latent, quality_map), again(latent, quality_map))
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {"config.json", "model.safetensors"}


def test_a_folder_of_something_else_is_refused(tmp_path):
    from components.weights import save_safetensors

    save_safetensors(tmp_path / "other", {"weight": torch.zeros(2)}, {"kind": "something else"})
    with pytest.raises(CotamError, match="does not hold an adapter"):
        LatentAdapter.load(tmp_path / "other")


@pytest.mark.parametrize("wrong", [{"heads": 3}, {"neighbourhood": 2}, {"colour": "red"}])
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(ValidationError):
        AdapterConfig(**(CONFIG.model_dump() | wrong))
