"""The tower that is learned through says what the tower itself says, forwards and backwards."""

import pytest
import torch
from transformers.activations import QuickGELUActivation

from components.training.tower import training_tower
from components.vision import load_tower
from tests.models import tiny_llava_folder

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="nothing is exchanged on a GPU")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_llava_folder(tmp_path_factory.mktemp("llava") / "tiny", seed=2)


def seen(tower, patches):
    patches = patches.clone().requires_grad_()
    features = tower.forward_from_patches(patches).consumed_BND
    features.square().sum().backward()
    return features.detach(), patches.grad


def test_it_is_the_same_function(folder):
    plain, fast = load_tower(folder), training_tower(load_tower(folder))
    patches = torch.randn(3, plain.grid[0] * plain.grid[1], plain.width, generator=torch.Generator().manual_seed(1))
    assert isinstance(plain.model.encoder.layers[0].mlp.activation_fn, QuickGELUActivation)
    assert not isinstance(fast.model.encoder.layers[0].mlp.activation_fn, QuickGELUActivation)
    for mine, other in zip(seen(fast, patches), seen(plain, patches), strict=True):
        assert (mine - other).norm() < 1e-5 * other.norm()


def test_other_activations_stay(folder):
    plain, fast = load_tower(folder), load_tower(folder)
    for tower in (plain, fast):
        for layer in tower.model.encoder.layers:
            layer.mlp.activation_fn = torch.nn.GELU()
    patches = torch.randn(2, plain.grid[0] * plain.grid[1], plain.width, generator=torch.Generator().manual_seed(1))
    expected = seen(plain, patches)[0]
    assert (seen(training_tower(fast), patches)[0] - expected).norm() < 1e-5 * expected.norm()
