"""Towers of all families behind one interface: features, attention, entering further up, as transformers has them."""

import copy
import re

import numpy as np
import pytest
import torch

from components.codec.guidance import guide
from components.errors import CotamError
from components.mllm.loading import FAMILIES as MLLMS
from components.paths import ROOT
from components.training.tower import training_tower
from components.vision import TOWERS, load_tower
from components.vision.registry import FAMILIES
from tests.fourth_tower import fourth_family, vit_folder
from tests.models import tiny_clip_folder
from tests.models_tiled import tiny_internvl_folder, tiny_onevision_folder
from tests.pictures import noise
from tests.towers import hub_internvit_folder, internvit_folder, siglip_folder

FOLDERS = {
    "clip": tiny_clip_folder,
    "siglip": siglip_folder,
    "internvit": internvit_folder,
    "hub internvit": hub_internvit_folder,
    "onevision": tiny_onevision_folder,
    "internvl": tiny_internvl_folder,
    "vit": vit_folder,
}


@pytest.fixture(scope="module", autouse=True)
def fourth(tmp_path_factory):
    with fourth_family(tmp_path_factory.mktemp("fourth")) as kind:
        yield kind


@pytest.fixture(scope="module", params=FOLDERS)
def tower(request, fourth, tmp_path_factory):
    return load_tower(FOLDERS[request.param](tmp_path_factory.mktemp("towers") / request.param.replace(" ", "-")))


@pytest.fixture(scope="module")
def pixels_B3HW(tower):
    return torch.randn(2, 3, *tower.geometry.output_size, generator=torch.Generator().manual_seed(9))


@pytest.fixture(scope="module")
def states(tower, pixels_B3HW):
    with torch.no_grad():
        return tower.model(pixels_B3HW, output_hidden_states=True).hidden_states


def test_features_are_bitwise_those_of_transformers(tower, pixels_B3HW, states):
    patches_BND = tower.patch_embed(pixels_B3HW)
    assert patches_BND.shape == (2, tower.grid[0] * tower.grid[1], tower.width)
    features = tower.forward_from_patches(patches_BND, final=True)
    assert torch.equal(features.consumed_BND, states[tower.feature_layer][:, tower.cls :])
    assert torch.equal(features.final_BND, states[-1][:, tower.cls :])
    assert features.consumed_BND.shape == patches_BND.shape
    found = tower.hidden_states(patches_BND, {0, 2})
    assert torch.equal(found[0], states[0])
    assert torch.equal(found[2], states[2])


def test_the_tower_can_be_entered_further_up(tower, pixels_B3HW, states):
    assert torch.equal(tower.states_from(states[1], 1, {tower.layers})[tower.layers], states[-1])
    with pytest.raises(CotamError, match="enters this tower at layer 2"):
        tower.states_from(states[2], 2, {1})


def test_attention_is_that_of_transformers(tower, pixels_B3HW):
    before = tower.model.config._attn_implementation
    tower.model.set_attn_implementation("eager")
    with torch.no_grad():
        attentions = tower.model(pixels_B3HW, output_attentions=True).attentions
    tower.model.set_attn_implementation(before)
    for layers in [(0, 1, 2), (1,)]:
        mean_BTT = torch.stack([attentions[layer].mean(1) for layer in layers]).mean(0)
        drawn_BN = mean_BTT[:, 0, 1:] if tower.cls else mean_BTT.mean(1)
        expected_Bhw = drawn_BN.unflatten(1, tower.grid)
        torch.testing.assert_close(tower.attention_map(pixels_B3HW, layers), expected_Bhw)
        received_BN = mean_BTT.mean(1)[:, tower.cls :].unflatten(1, tower.grid)
        torch.testing.assert_close(tower.received_attention(pixels_B3HW, layers), received_BN)
    if not tower.cls:
        with pytest.raises(CotamError, match="no CLS token"):
            tower.cls_attention(pixels_B3HW)


def test_every_tower_can_guide(tower):
    levels = np.stack(guide(tower, [noise(seed) for seed in range(3)], grid=4))
    assert levels.shape == (3, 4, 4)
    assert levels.any()


def test_gradients_reach_the_patches_and_no_parameter(tower, pixels_B3HW):
    patches_BND = tower.patch_embed(pixels_B3HW).requires_grad_()
    tower.forward_from_patches(patches_BND).consumed_BND.square().mean().backward()
    assert patches_BND.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in tower.parameters())


def test_every_tower_can_be_trained_through(tower, pixels_B3HW):
    """Exchanging attention and activations for training changes no feature but by rounding."""
    patches_BND = tower.patch_embed(pixels_B3HW)
    expected_BND = tower.forward_from_patches(patches_BND).consumed_BND
    before = tower.model.config._attn_implementation
    fast = training_tower(copy.deepcopy(tower))
    found_BND = fast.forward_from_patches(patches_BND).consumed_BND
    tower.model.set_attn_implementation(before)
    torch.testing.assert_close(found_BND, expected_BND, atol=1e-3, rtol=1e-2)


def test_a_family_is_one_line():
    """Alone and inside an MLLM a tower is found by the `model_type` of its own configuration."""
    for kind, family in FAMILIES.items():
        assert family.model_class.config_class.model_type == kind
        assert kind in TOWERS


def test_the_page_of_models_names_every_kind_that_can_be_opened():
    page = (ROOT / "docs/models.md").read_text(encoding="utf-8").partition("## Other models")[2]
    rows = page.partition("| MLLMs |")
    shipped = {kind for kind in TOWERS if kind != "vit"}
    assert set(re.findall(r"`([a-z0-9_]+)`", rows[0])) - {"model_type"} == shipped
    assert set(re.findall(r"`([a-z0-9_]+)`", rows[2].partition("\n\n")[0])) == set(MLLMS)
