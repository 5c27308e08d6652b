"""An adapter is used with the codec and the vision tower that it was trained for, not with others of the same sizes."""

import itertools

import pytest
import torch

from components.adapter import AdapterConfig, LatentAdapter
from components.codec import Codec
from components.codec.elic import Elic
from components.codec.folder import save_codec
from components.errors import CotamError
from components.mllm import load_mllm
from components.mllm.showing import check_fit
from components.paths import PRETRAINED
from components.training.tower import training_tower
from components.vision import load_tower
from tests.fourth_tower import fourth_family, vit_folder
from tests.internvl2 import published_folder
from tests.models_tiled import tiny_onevision_folder
from tests.pictures import noise
from tests.small_checkout import tiny_codec_folder

SHIPPED = sorted(file.parent.name for file in PRETRAINED.glob("mllm/*/model.safetensors"))
ONE_TOWER = {"micro-llava", "small-llava"}
CODEC = "0a1b2c3d"


def adapter_for(codec: str, tower, channels: int = 12) -> LatentAdapter:
    sizes = AdapterConfig(latent_channels=channels, feature_dim=tower.width, grid=tower.grid, width=16, heads=2)
    return LatentAdapter(sizes).trained_for(codec, tower.identity).eval()


@pytest.fixture(scope="module")
def mllms():
    return {name: load_mllm(PRETRAINED / "mllm" / name) for name in SHIPPED}


@pytest.fixture(scope="module")
def towers():
    """As the training opens them."""
    return {name: training_tower(load_tower(PRETRAINED / "mllm" / name, bf16=True)) for name in SHIPPED}


@pytest.mark.parametrize(("trained", "asked"), [*itertools.product(SHIPPED, SHIPPED)])
def test_of_the_shipped_mllms_those_of_one_tower_share_an_adapter(mllms, towers, trained, asked):
    adapter, tower = adapter_for(CODEC, towers[trained]), mllms[asked].tower
    assert (adapter.config.feature_dim, adapter.config.grid) == (tower.width, tower.grid)  # sizes tell nothing
    if trained == asked or {trained, asked} == ONE_TOWER:
        check_fit(adapter, tower, 12, CODEC)
    else:
        with pytest.raises(CotamError, match=r"on the vision tower \w{8}, this MLLM's is \w{8}; use the adapter"):
            check_fit(adapter, tower, 12, CODEC)


def test_a_fine_tuned_codec_is_another(mllms, tmp_path):
    first = Codec.from_pretrained(tiny_codec_folder(tmp_path / "codec"))
    tuned = Elic(first.config)
    tuned.load_state_dict(first.model.state_dict())
    with torch.no_grad():
        next(tuned.parameters()).mul_(1.01)
    save_codec(tmp_path / "tuned", tuned)
    second, mllm = Codec.from_pretrained(tmp_path / "tuned"), mllms["micro-llava"]
    adapter = adapter_for(first.model_id, mllm.tower, first.config.latent_channels)
    streams = {codec: codec.encode([noise(1)], 3) for codec in (first, second)}
    assert len(mllm.decoded_views(first.decode(streams[first]), adapter)) == 1
    decoded = second.decode(streams[second])
    expected = f"trained on the codec {first.model_id}, this one is {second.model_id}; use the adapter"
    for see in (mllm.decoded_views, lambda one, adapter: mllm.several_views([one], adapter)):
        with pytest.raises(CotamError, match=expected):
            see(decoded, adapter)


def test_one_that_does_not_know_is_taken_at_its_sizes(mllms):
    for mllm in mllms.values():
        tower = mllm.tower
        sizes = AdapterConfig(latent_channels=12, feature_dim=tower.width, grid=tower.grid, width=16, heads=2)
        check_fit(LatentAdapter(sizes), tower, 12, CODEC)
        check_fit(adapter_for(CODEC, tower), tower, 12, None)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", SHIPPED)
def test_a_tower_is_itself_in_every_type(mllms, towers, name, dtype):
    assert mllms[name].tower.identity == towers[name].identity
    assert load_mllm(PRETRAINED / "mllm" / name, dtype=dtype).tower.identity == towers[name].identity


def test_numbers_that_a_type_cannot_hold_change_no_name():
    tower, other = (load_tower(PRETRAINED / "clip/micro") for _ in range(2))
    for one in (tower, other):
        one.model.embeddings.patch_embedding.weight.data[:4] *= 1e-9  # nothing is left of them in float16
    other.model.half().float()
    assert not other.model.embeddings.patch_embedding.weight[0].any()
    assert tower.identity == other.identity


def test_one_weight_makes_another_tower():
    tower, other = (load_tower(PRETRAINED / "clip/micro") for _ in range(2))
    other.blocks[5].mlp.fc2.weight.data[7, 3] *= -1
    assert tower.identity != other.identity


def test_a_tower_has_one_name_alone_inside_and_in_both_layouts(tmp_path):
    for folder in (published_folder(tmp_path / "published"), tiny_onevision_folder(tmp_path / "onevision")):
        assert load_tower(folder).identity == load_mllm(folder).tower.identity
    with fourth_family(tmp_path):
        assert load_tower(vit_folder(tmp_path / "vit")).identity


def test_weights_that_are_not_there_have_no_name(mllms):
    tower = load_tower(PRETRAINED / "clip/micro")
    tower.model.to("meta")
    assert tower.identity is None
    check_fit(adapter_for(CODEC, mllms["micro-llava"].tower), tower, 12, CODEC)


def test_a_folder_keeps_whom_it_was_trained_for(mllms, tmp_path):
    adapter = adapter_for(CODEC, mllms["micro-llava"].tower)
    adapter.save(tmp_path / "adapter")
    again = LatentAdapter.load(tmp_path / "adapter").config
    assert (again.codec, again.tower) == (CODEC, mllms["micro-llava"].tower.identity)
