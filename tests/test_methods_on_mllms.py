"""Every method with every kind of MLLM that ships: what is accepted is trained, and what cannot be is refused first."""

import importlib
import json

import numpy as np
import pytest

from components import config
from components.config_variants import METHODS
from components.data.sharding import shard_folder
from components.errors import CotamError
from components.mllm import load_mllm
from components.paths import ROOT
from components.scenes import step_render
from components.step_inputs import Params, StepInputs
from components.training.placed import Placed
from components.variant_checks import check_models
from components.variants import find_run, settings_of
from tests.models_tiled import tiny_internvl_folder, tiny_onevision_folder
from tests.small_checkout import CODEC, write_checkout

SEED = config.load().seed
KINDS = {"micro-llava": None, "micro-internvl": tiny_internvl_folder, "micro-onevision": tiny_onevision_folder}
TRAINED = [method for method, about in METHODS.items() if about.trains and not about.continues_main_run]
SETTINGS = {
    "scenes.images": "10",
    **{"adapter.batch": "4", "adapter.draws": "1", "adapter.held_out": "2", "adapter.qualities": "[1, 8]"},
    **{"adapter.warmup_epochs": "0", "adapter.joint_epochs": "1"},
    **{"baselines.bridge.heads": "2", "baselines.bridge.layer": "1", "baselines.bridge.start_epochs": "0"},
    **{"baselines.bridge.epochs": "[0, 0, 1]", "baselines.modulation.channels": "4"},
    "baselines.modulation.epochs": "1",
    **{"baselines.tuning.epochs": "1", "baselines.tuning.batch": "4"},
    **{"baselines.mllm_tuning.rank": "2", "baselines.mllm_tuning.epochs": "1", "baselines.mllm_tuning.questions": "1"},
}
REFUSED = {(method, "micro-onevision") for method in ("bridge-d1", "bridge-d3")}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    paths = write_checkout(tmp_path_factory.mktemp("checkout"), SETTINGS)
    for mllm, write in KINDS.items():
        if write:
            write(paths.root / "pretrained/mllm" / mllm)
    paths.scenes.mkdir(parents=True)
    settings = config.load(paths.root / "params.yaml")
    step_render.run(StepInputs(Params(settings.model_dump(mode="json")), paths.work, paths.scenes, paths=paths))
    shard_folder(paths.scenes, paths.shards, seed=7, shard_images=5, name="data/scenes")
    return paths


def entry(method, mllm):
    return {"variants": f"{{one: {{method: {method}, mllm: {mllm}, guidance: {{levels: 1}}}}}}"}


@pytest.mark.parametrize("mllm", KINDS)
@pytest.mark.parametrize("method", TRAINED)
def test_what_is_accepted_is_trained(checkout, tmp_path, method, mllm):
    settings = config.load(checkout.root / "params.yaml", overrides=entry(method, mllm))
    run = find_run(settings, "one", SEED)
    for place in ("out", "work"):
        (tmp_path / place).mkdir()
    inputs = StepInputs(
        Params(settings_of(settings, run)), tmp_path / "work", tmp_path / "out", CODEC, mllm, run, checkout
    )
    train = importlib.import_module(f"components.training.methods.{method.replace('-', '_')}").train
    if (method, mllm) in REFUSED:
        with pytest.raises(CotamError, match=r"variants\.one\.method is bridge-d., whose neck makes a class token"):
            check_models(settings, ["one"], checkout.root)
        with pytest.raises(CotamError, match="a tower without a class token"):  # a step that is run alone
            train(inputs)
        return
    check_models(settings, ["one"], checkout.root)
    train(inputs)
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["training"] and np.isfinite(list(metrics["training"].values())).all()


def test_what_ships_is_accepted_or_refused_likewise():
    settings = config.load()
    for method in TRAINED:
        for mllm in settings.mllm:
            one = config.load(overrides=entry(method, mllm))
            if (method, mllm) in REFUSED:
                with pytest.raises(CotamError, match=f"but the tower of {mllm} has none"):
                    check_models(one, ["one"], ROOT)
            else:
                check_models(one, ["one"], ROOT)


@pytest.mark.parametrize("mllm", KINDS)
def test_a_training_picture_stands_in_the_prompt_as_when_it_is_asked_about(checkout, mllm):
    import torch

    found = load_mllm(checkout.root / "pretrained/mllm" / mllm)
    placed = Placed(found)
    side = found.tower.geometry.output_size
    picture = np.random.default_rng(0).integers(0, 255, (*side, 3), np.uint8)
    [seen] = found.views([picture])
    [[shown_nE]] = found.embed([seen])
    layer = found.tower.feature_layer
    pixels_B3HW = found.tower.geometry.transform(torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255)
    with torch.no_grad():
        states_BTD = found.tower.hidden_states(found.tower.patch_embed(pixels_B3HW), {layer})[layer]
        assert torch.allclose(placed.embed(states_BTD)[0], shown_nE, atol=1e-4)
    kind, placeholders, _ = found._spoken(seen, [shown_nE])
    assert placed.prompt("is it a circle ?") == found.prompts.ids("is it a circle ?", kind, placeholders)


def test_an_mllm_that_cuts_a_picture_of_its_towers_size_is_refused(checkout, monkeypatch):
    found = load_mllm(checkout.root / "pretrained/mllm/micro-onevision")
    side = found.tower.geometry.output_size
    larger = tuple(size for size in found.family.tiling.pinpoints if size != side)
    monkeypatch.setattr(found.family, "tiling", type(found.family.tiling)(found.geometry, larger))
    with pytest.raises(CotamError, match=r"cuts pictures of 48 x 48 pixels into tiles"):
        Placed(found)
