"""Towers of all families, looked into while they compute: what is seen is what transformers and the equations say."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from components.analysis import encoder
from components.analysis.collect import analyse
from components.analysis.compressors import parse_choice, parse_choices
from components.analysis.flow import NAMES
from components.analysis.images import find_images
from components.analysis.measure import Measure
from components.analysis.towers import describe, open_tower
from components.errors import CotamError
from components.vision import load_tower
from tests import analysis_reference as reference
from tests.fourth_tower import fourth_family, vit_folder
from tests.models import tiny_clip_folder
from tests.pictures import folder_of
from tests.towers import hub_internvit_folder, internvit_folder, siglip_folder

FAMILIES = {
    "clip": tiny_clip_folder,
    "siglip": siglip_folder,
    "internvit": internvit_folder,
    "hub internvit": hub_internvit_folder,
    "vit": vit_folder,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Iterator[dict[str, Path]]:
    root = tmp_path_factory.mktemp("towers")
    with fourth_family(root):
        yield {name: write(root / name.replace(" ", "-")) for name, write in FAMILIES.items()}


def pixels_of(tower, images: int = 3) -> torch.Tensor:
    return torch.randn(images, 3, *tower.geometry.output_size, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_attention_heard_is_the_attention_computed(folders, family):
    frozen = load_tower(folders[family])
    tower = describe(frozen, family)
    pixels, heard, states = pixels_of(tower), {}, {}
    tower.look(pixels, heard.__setitem__, states.__setitem__)
    tower.model.set_attn_implementation("eager")
    left = []
    last = frozen.blocks[-1]
    last.register_forward_hook(lambda _, __, out: left.append(out if isinstance(out, torch.Tensor) else out[0]))
    with torch.inference_mode():
        told = tower.model(pixels, output_attentions=True, output_hidden_states=True)
    assert list(heard) == list(range(tower.layers))
    for layer, attention_BHTT in enumerate(told.attentions):
        assert torch.allclose(heard[layer], attention_BHTT.mean(1), atol=1e-6), layer
    assert sorted(states) == list(range(tower.layers + 1))
    for state in range(tower.layers):
        assert torch.allclose(states[state], told.hidden_states[state], atol=1e-4), state
    assert torch.allclose(states[tower.layers], left[-1], atol=1e-4)  # the model's last state may be a norm's


def test_attention_is_what_the_equations_say(folders):
    tower = open_tower(folders["clip"])
    heard, states, layer = {}, {}, 2
    tower.look(pixels_of(tower, 2), heard.__setitem__, states.__setitem__)
    block = tower.model.encoder.layers[layer]
    module = block.self_attn
    with torch.inference_mode():
        tokens = block.layer_norm1(states[layer])
        query, key = (projection(tokens) for projection in (module.q_proj, module.k_proj))
    heads = [part.unflatten(-1, (-1, module.head_dim)).transpose(1, 2).numpy() for part in (query, key)]
    for image in range(2):
        expected_TT = reference.softmax_attention(heads[0][image], heads[1][image], module.scale)
        assert heard[layer][image].numpy() == pytest.approx(expected_TT, abs=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_looking_leaves_the_tower_as_it_was(folders, family):
    plain, looked = load_tower(folders[family]).model, open_tower(folders[family])
    pixels = pixels_of(looked)
    looked.look(pixels, lambda *_: None, lambda *_: None)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(looked.model.state_dict()[name], tensor), name
    with torch.inference_mode():
        assert torch.equal(looked.model(pixels).last_hidden_state, plain(pixels).last_hidden_state)


@pytest.mark.parametrize("family", ["clip", "internvit"])
def test_parts_of_a_batch_change_no_number(folders, family, monkeypatch):
    tower, whole, parts = open_tower(folders[family]), {}, {}
    pixels = pixels_of(tower, 5)
    tower.look(pixels, lambda *_: None, whole.__setitem__)
    monkeypatch.setattr(encoder, "ROWS", 2 * tower.layout.tokens)  # three parts
    tower.look(pixels, lambda *_: None, parts.__setitem__)
    for state, tokens_BTD in whole.items():
        assert torch.allclose(parts[state], tokens_BTD, rtol=1e-6, atol=1e-6), state


def test_both_layouts_of_an_internvit_are_one_tower(folders):
    ours, theirs = open_tower(folders["internvit"]), open_tower(folders["hub internvit"])
    pixels = pixels_of(ours)
    with torch.inference_mode():
        assert torch.equal(ours.model(pixels).last_hidden_state, theirs.model(pixels).last_hidden_state)
    assert ours.layout == theirs.layout
    assert (ours.layout.cls, ours.layout.grid) == (1, (7, 7))


def test_a_siglip_has_no_cls(folders):
    tower = open_tower(folders["siglip"])
    assert (tower.layout.cls, tower.layout.grid) == (0, (6, 6))


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_batches_and_processes_change_no_number(folders, family, tmp_path):
    images, choices = find_images(str(folder_of(tmp_path / "pictures", 19)), 19), [parse_choice("jpeg:10,60")]
    whole = analyse(str(folders[family]), images, choices, batch=19)
    for other in (
        analyse(str(folders[family]), images, choices, batch=1),
        analyse(str(folders[family]), images, choices, batch=5, workers=2),
    ):
        for name in NAMES:
            assert other.values[name] == pytest.approx(whole.values[name], rel=1e-6, abs=1e-9), name
        assert other.similarity_ISL == pytest.approx(whole.similarity_ISL, rel=1e-6)
        assert np.array_equal(other.bits_IS, whole.bits_IS)
        for name in ("inflow", "outflow", "summary"):
            assert np.array_equal(other.sums[name], whole.sums[name]), name


def test_an_image_is_as_if_it_were_alone(folders):
    tower = open_tower(folders["clip"])
    pixels = pixels_of(tower, 6).unflatten(0, (3, 2))
    together = Measure(tower, 2)(pixels)
    for place in range(3):
        alone = Measure(tower, 2)(pixels[place : place + 1])
        assert alone.values_BVLK[0] == pytest.approx(together.values_BVLK[place], rel=1e-6, abs=1e-9)
        assert alone.similarity_BSL[0] == pytest.approx(together.similarity_BSL[place], rel=1e-6)


def test_an_equal_version_is_equal(folders):
    tower = open_tower(folders["siglip"])
    pixels = pixels_of(tower, 2)[:, None].repeat(1, 2, 1, 1, 1)
    found = Measure(tower, 2)(pixels)
    assert found.similarity_BSL == pytest.approx(np.ones_like(found.similarity_BSL))
    assert np.isnan(found.cls_similarity_BSL).all()


def test_what_is_no_tower(folders, tmp_path):
    with pytest.raises(CotamError, match=r"no config\.json"):
        open_tower(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CotamError, match="'bert' model; a vision tower must be one of clip"):
        open_tower(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CotamError, match="names no model_type"):
        open_tower(tmp_path)
    with pytest.raises(CotamError, match="There is no model at"):
        open_tower("nothing/here/at/all")


def test_a_tower_without_its_weights(folders, tmp_path):
    folder = hub_internvit_folder(tmp_path / "tower")
    weights = (folder / "model.safetensors").rename(tmp_path / "elsewhere")
    with pytest.raises(CotamError, match="has no weights: its safetensors files are missing"):
        open_tower(folder)
    weights.rename(folder / "model.safetensors")
    for make, name in ((siglip_folder, "encoder.layers.0.mlp.fc1.weight"), (internvit_folder, "lambda_1")):
        folder_of_one = make(tmp_path / name)
        file = next(folder_of_one.glob("model*.safetensors"))
        tensors = {key: tensor for key, tensor in load_file(file).items() if name not in key}
        save_file(tensors, file, metadata={"format": "pt"})
        with pytest.raises(CotamError, match=f"has no weights for .*{name}"):
            open_tower(folder_of_one)
    told = json.loads((folder / "config.json").read_text())
    del told["norm_type"]
    (folder / "config.json").write_text(json.dumps(told))
    with pytest.raises(CotamError, match="norm_type"):
        open_tower(folder)


def test_a_processor_that_does_not_fit(folders, tmp_path):
    folder = siglip_folder(tmp_path / "tower")
    told = json.loads((folder / "preprocessor_config.json").read_text()) | {"size": {"height": 40, "width": 40}}
    (folder / "preprocessor_config.json").write_text(json.dumps(told))
    with pytest.raises(CotamError, match=r"makes \(40, 40\) pixels but the tower takes 48 x 48"):
        open_tower(folder)


def test_codecs_as_they_are_written():
    assert parse_choice("jpeg").qualities == (5, 20, 50)
    assert parse_choice("AVIF:60,10,60").qualities == (10, 60)
    assert parse_choice("webp", [30]).qualities == (30,)
    ours = parse_choice("pretrained/codec/elic-micro/:4,0")
    assert (ours.source, ours.name, ours.qualities) == ("pretrained/codec/elic-micro/", "elic-micro", (0, 4))
    assert parse_choice("models:/cotam-codec-elic@champion").source == "models:/cotam-codec-elic@champion"
    with pytest.raises(CotamError, match="jpeg has no quality 101"):
        parse_choice("jpeg:101")
    with pytest.raises(CotamError, match="has no quality 10;"):
        parse_choice("my-codec", [10])
    with pytest.raises(CotamError, match="Two codecs are called jpeg"):
        parse_choices(["jpeg:5", "jpeg:9"])
