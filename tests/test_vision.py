"""The tower in pieces equals transformers' own model, and reads only as deep as it must."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModel, LlavaForConditionalGeneration

from components.errors import CotamError
from components.vision import ClipTower, Geometry, load_tower
from tests.models import tiny_clip_folder, tiny_llava_folder


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    return tiny_clip_folder(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def llava_folder(tmp_path_factory):
    return tiny_llava_folder(tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="module")
def tower(clip_folder):
    return load_tower(clip_folder)


@pytest.fixture(scope="module")
def pixels_B3HW(tower):
    rng = np.random.default_rng(1)
    return tower.geometry.pixels([rng.integers(0, 256, (128, 128, 3), dtype=np.uint8) for _ in range(3)])


def test_features_are_bitwise_those_of_transformers(tower, clip_folder, pixels_B3HW):
    model = CLIPModel.from_pretrained(clip_folder).vision_model
    with torch.no_grad():
        states = model(pixels_B3HW, output_hidden_states=True).hidden_states
        features = tower.forward_from_patches(tower.patch_embed(pixels_B3HW), final=True)
        shallow = tower.forward_from_patches(tower.patch_embed(pixels_B3HW))
    assert torch.equal(features.consumed_BND, states[-2][:, 1:])
    assert torch.equal(features.final_BND, states[-1][:, 1:])
    assert torch.equal(shallow.consumed_BND, features.consumed_BND)
    assert shallow.final_BND is None


def test_cls_attention_is_that_of_transformers(tower, clip_folder, pixels_B3HW):
    model = CLIPModel.from_pretrained(clip_folder, attn_implementation="eager").vision_model
    with torch.no_grad():
        attentions = model(pixels_B3HW, output_attentions=True).attentions
    for layers in [(0, 1, 2), (2,), (0, 3)]:
        expected_BN = torch.stack([attentions[layer][:, :, 0, 1:].mean(1) for layer in layers]).mean(0)
        torch.testing.assert_close(tower.cls_attention(pixels_B3HW, layers), expected_BN.view(3, 8, 8))


def test_cls_attention_runs_no_layer_that_it_does_not_need(tower, pixels_B3HW):
    ran = []
    hooks = [
        layer.register_forward_hook(lambda *_, index=index: ran.append(index))
        for index, layer in enumerate(tower.model.encoder.layers)
    ]
    tower.cls_attention(pixels_B3HW, (0, 1, 2))
    for hook in hooks:
        hook.remove()
    assert ran == [0, 1]


def test_gradients_reach_the_patches_and_no_parameter(tower, pixels_B3HW):
    patches_BND = tower.patch_embed(pixels_B3HW).requires_grad_()
    tower.forward_from_patches(patches_BND).consumed_BND.square().mean().backward()
    assert patches_BND.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in tower.parameters())


def test_bf16_returns_float32_close_to_exact(clip_folder, tower, pixels_B3HW):
    fast = load_tower(clip_folder, bf16=True)
    with torch.no_grad():
        patches_BND = fast.patch_embed(pixels_B3HW)
        features_BND = fast.forward_from_patches(patches_BND).consumed_BND
        exact_BND = tower.forward_from_patches(tower.patch_embed(pixels_B3HW)).consumed_BND
    assert patches_BND.dtype == features_BND.dtype == torch.float32
    assert (features_BND - exact_BND).norm() < 0.03 * exact_BND.norm()


def test_the_tower_of_an_mllm_is_read_from_its_own_files(llava_folder):
    tower = load_tower(llava_folder)
    whole = LlavaForConditionalGeneration.from_pretrained(llava_folder).model.vision_tower.state_dict()
    assert tower.feature_layer == 3
    assert all(torch.equal(tensor, whole[name]) for name, tensor in tower.model.state_dict().items())


def test_checkpoints_from_before_transformers_5_have_one_level_more(llava_folder, tmp_path):
    tower = load_tower(llava_folder)
    names = {f"vision_tower.vision_model.{name}": tensor for name, tensor in tower.model.state_dict().items()}
    shutil.copytree(llava_folder, tmp_path / "old", ignore=shutil.ignore_patterns("*.safetensors"))
    save_file(names, tmp_path / "old/model-00001-of-00003.safetensors")
    old = load_tower(tmp_path / "old").model.state_dict()
    assert all(torch.equal(tensor, old[name]) for name, tensor in tower.model.state_dict().items())


def test_full_size_shapes():
    """LLaVA-1.5's tower: 336 pixels, 24 x 24 patches of 1024, features after 23 of its 24 layers."""
    config = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
    )
    with torch.device("meta"):
        geometry = Geometry(mean=(0.5,) * 3, std=(0.5,) * 3, shortest_edge=336, crop=(336, 336))
        tower = ClipTower(CLIPVisionModel(config), geometry)
        patches_BND = tower.patch_embed(torch.empty(2, 3, 336, 336))
        features = tower.forward_from_patches(patches_BND, final=True)
        attention_Bhw = tower.cls_attention(torch.empty(2, 3, 336, 336))
    assert patches_BND.shape == features.consumed_BND.shape == features.final_BND.shape == (2, 576, 1024)
    assert attention_Bhw.shape == (2, 24, 24)
    assert tower.feature_layer == 23


def test_errors_say_what_is_wrong(tmp_path, tower, clip_folder, pixels_B3HW):
    with pytest.raises(CotamError, match=r"config\.json"):
        load_tower(tmp_path)
    AutoConfig.for_model("bert").save_pretrained(tmp_path)
    with pytest.raises(CotamError, match="'bert'"):
        load_tower(tmp_path)
    AutoConfig.from_pretrained(clip_folder).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(CotamError, match="damaged"):
        load_tower(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(tower.model.state_dict(), tmp_path / "pytorch_model.bin")  # a pickle is never opened
    with pytest.raises(CotamError, match=r"only pickled weights \(pytorch_model\.bin\), .*; convert them"):
        load_tower(tmp_path)
    with pytest.raises(CotamError, match="choose 0 to 3"):
        tower.cls_attention(pixels_B3HW, (4,))
    with pytest.raises(CotamError, match="tower takes 128 x 128"):
        ClipTower(tower.model, Geometry(mean=(0,) * 3, std=(1,) * 3, crop=(96, 96)))
