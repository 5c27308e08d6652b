"""Bridge: a neck's tokens enter a tower, its surrogate loss, labels in a CLIP's words, and how an MLLM receives it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from components.baselines.bridge import NeckConfig, TransformNeck
from components.baselines.losses import label_loss
from components.baselines.scene_classes import CLASSES, SceneClasses, class_of
from components.errors import CotamError
from components.mllm import Entry, View, load_mllm
from components.mllm.reception import BridgeReception, load_reception
from components.scenes import sample_scene
from tests.models import LAYERS, WIDTH, tiny_clip_folder, tiny_llava_folder
from tests.small_checkout import scenes

CHANNELS = 6
NECK = NeckConfig(latent_channels=CHANNELS, feature_dim=WIDTH, grid=(8, 8), layer=1, heads=2)


@pytest.fixture(scope="module")
def mllm(tmp_path_factory):
    return load_mllm(tiny_llava_folder(tmp_path_factory.mktemp("llava"), seed=2))


@pytest.fixture(scope="module")
def neck():
    torch.manual_seed(0)
    made = TransformNeck(NECK).eval()
    made.set_scales(torch.randn(CHANNELS), torch.rand(CHANNELS) + 0.5, torch.randn(WIDTH), torch.rand(WIDTH))
    torch.nn.init.normal_(made.quality.steps_QW)
    return made


def decoded(height=128, width=128, seed=0):
    random = np.random.default_rng(seed)
    size = (-(-height // 16), -(-width // 16))
    return SimpleNamespace(
        image=random.integers(0, 256, (height, width, 3), dtype=np.uint8),
        latent=random.normal(size=(CHANNELS, *size)).astype(np.float32),
        level_map=random.integers(0, 10, size),
    )


def test_a_tower_is_entered_where_it_was_left(mllm):
    tower = mllm.tower
    patches = tower.patch_embed(mllm.geometry.pixels(scenes(2)))
    whole = tower.hidden_states(patches, range(LAYERS + 1))
    for layer in range(LAYERS):
        again = tower.states_from(whole[layer], layer, {LAYERS, layer})
        assert torch.equal(again[LAYERS], whole[LAYERS]) and torch.equal(again[layer], whole[layer])
    with pytest.raises(CotamError, match="cannot have its layers"):
        tower.states_from(whole[2], 2, {1})
    with pytest.raises(CotamError, match="is not in this tower"):
        tower.states_from(whole[2], LAYERS + 1, {LAYERS})


def test_views_that_enter_mix_with_others(mllm):
    pictures = scenes(3)
    plain = mllm.views(pictures)
    tower = mllm.tower
    state = tower.hidden_states(tower.patch_embed(torch.stack([plain[1].pixels_3HW])), {2})[2][0]
    mixed = [plain[0], View(None, entry=Entry(state, 2)), plain[2]]
    assert torch.allclose(mllm.family.embed(mixed), mllm.family.embed(plain), atol=1e-5)
    assert torch.equal(mllm.family.embed(plain)[:1], mllm.family.embed([*plain])[:1])
    prompts = ["How many circles are there?"] * 3
    assert mllm.answer(mixed, prompts) == mllm.answer(plain, prompts)


def test_the_neck_is_what_it_says(neck):
    y = torch.randn(2, CHANNELS, 8, 8)
    maps = torch.randint(0, 10, (2, 8, 8))
    unit = (y - neck.latent_mean_C[:, None, None]) / neck.latent_std_C[:, None, None]
    rows = torch.einsum("bchw,dc->bhwd", unit, neck.projection.weight) + neck.projection.bias
    rows = rows + neck.quality.steps_QW.cumsum(0)[maps]
    first = neck.class_token_D.expand(2, 1, -1)
    with torch.no_grad():
        expected = neck.block(neck.norm(torch.cat([first, rows.flatten(1, 2)], 1) + neck.position_TD))
        expected = expected * neck.output_std_D + neck.output_mean_D
        tokens = neck(y, maps)
    assert tokens.shape == (2, 65, WIDTH) and torch.allclose(tokens, expected, atol=1e-5)


def test_it_is_saved_and_loaded(tmp_path, neck):
    neck.save(tmp_path / "neck")
    again = TransformNeck.load(tmp_path / "neck")
    assert again.config == NECK
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in neck.state_dict().items())
    with pytest.raises(CotamError, match="does not exist"):
        TransformNeck.load(tmp_path / "nothing")
    from components.adapter import AdapterConfig, LatentAdapter

    LatentAdapter(AdapterConfig(latent_channels=6, feature_dim=32, grid=(8, 8), width=32)).save(tmp_path / "adapter")
    with pytest.raises(CotamError, match="does not hold a transform-neck"):
        TransformNeck.load(tmp_path / "adapter")


def test_the_label_loss_by_hand():
    torch.manual_seed(1)
    embedding, labels = torch.randn(4, 5), torch.tensor([2, 0, 1, 2])
    classes = torch.nn.functional.normalize(torch.randn(3, 5), dim=1)
    total = 0.0
    for row, label in zip(embedding, labels, strict=True):
        cosines = [float(row @ one / row.norm() / one.norm()) for one in classes]
        powers = np.exp(7.0 * np.array(cosines))
        total -= np.log(powers[label] / powers.sum())
    assert float(label_loss(embedding, classes, labels, 7.0)) == pytest.approx(total / 4, rel=1e-5)


def test_an_mllm_receives_it(tmp_path, mllm, neck):
    neck.save(tmp_path / "neck")
    codec = SimpleNamespace(config=SimpleNamespace(latent_channels=CHANNELS))
    reception = load_reception("bridge-d1", tmp_path, codec, mllm)
    items = [decoded(seed=1), decoded(96, 160, seed=2), decoded(seed=3)]
    views = reception.views(items)
    assert [view.entry.layer for view in views] == [1, 1, 1]
    alone = BridgeReception(mllm, neck).views([items[2]])[0]
    assert torch.allclose(views[2].entry.tokens_TD, alone.entry.tokens_TD, atol=1e-5)
    blank = decoded(seed=3)
    blank.image[:] = 0  # the picture is not looked at
    assert torch.equal(reception.views([blank])[0].entry.tokens_TD, alone.entry.tokens_TD)
    assert len(mllm.answer(views, ["How many circles are there?"] * 3)) == 3

    other = SimpleNamespace(config=SimpleNamespace(latent_channels=CHANNELS + 1))
    with pytest.raises(CotamError, match="train a neck for this codec"):
        load_reception("bridge-d3", tmp_path, other, mllm)
    deep = TransformNeck(NECK.model_copy(update={"layer": LAYERS - 1}))
    deep.save(tmp_path / "deep/neck")
    with pytest.raises(CotamError, match="another vision tower"):
        load_reception("bridge-d1", tmp_path / "deep", codec, mllm)
    with pytest.raises(CotamError, match="There is no method bridge-d2"):
        load_reception("bridge-d2", tmp_path, codec, mllm)


def test_classes_are_read_in_the_shipped_clips_words():
    """It tells clean scenes' classes far better than chance, which is 4 %."""
    from components.paths import PRETRAINED
    from components.vision import load_tower

    drawn = [sample_scene(5_000_000 + number, "validation") for number in range(40)]
    classes = SceneClasses(PRETRAINED / "clip/micro", drawn, seed=7)
    tower = load_tower(PRETRAINED / "mllm/micro-llava")
    assert len(classes.classes_KE) == len(CLASSES) and classes.belongs_to(tower)
    from components.scenes import render

    pixels = tower.geometry.pixels([render(scene) for scene in drawn])
    with torch.no_grad():
        last = tower.hidden_states(tower.patch_embed(pixels), {tower.layers})[tower.layers]
        named = (torch.nn.functional.normalize(classes.embed(last), dim=1) @ classes.classes_KE.T).argmax(1)
    right = named == torch.tensor([class_of(scene) for scene in drawn])
    assert float(right.float().mean()) > 0.4


def test_a_clip_without_words_is_refused(tmp_path):
    folder = tiny_clip_folder(tmp_path / "clip")
    with pytest.raises(CotamError, match="holds no tokenizer"):
        SceneClasses(folder, [sample_scene(1)], seed=7)
