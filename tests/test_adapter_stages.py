"""The two stages of the adapter's training, as the pipeline runs them: what learns, what stays, what a kill leaves."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from components import step_run
from components.adapter import LatentAdapter
from components.adapter.losses import high_loss
from components.codec import Codec
from components.errors import CotamError
from components.files import sha256_tree
from components.paths import ROOT
from components.steps import run_step
from components.training import adapter_stage, step_joint, step_warmup
from components.training.adapter_stage import residual
from components.vision import load_tower
from tests.small_checkout import CODEC, MLLM, SCENES, SETTINGS, scenes, write_checkout, write_shards

QUALITIES = ("1", "5", "9")
STEPS_PER_EPOCH = (SCENES - 8) // 4
CHECKPOINT = 100  # steps between two, as in components/training/loop.py


class Recorder:
    """A log that keeps what it is told."""

    def __init__(self):
        self.values: dict[str, list[float]] = {}
        self.steps: list[int] = []

    def metric(self, name: str, value: float, step: int | None = None) -> None:
        self.values.setdefault(name, []).append(value)
        if name == "loss":
            self.steps.append(step)

    def epochs(self, name: str) -> np.ndarray:
        """Its mean in every epoch."""
        return np.reshape(self.values[name], (-1, STEPS_PER_EPOCH)).mean(1)


@pytest.fixture(scope="module")
def patch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    paths = write_checkout(tmp_path_factory.mktemp("checkout"))
    write_shards(paths.shards, scenes(SCENES))
    return paths


@pytest.fixture(scope="module")
def run(checkout, patch):
    """Run a step through `run_step`, or as DVC would without it; return its log and the hash of what it wrote."""

    def run(name):
        log = Recorder()

        @contextmanager
        def stage_run(stage, params):
            assert stage == f"{name}@elic-micro-llava"
            yield log

        patch.setattr(step_run, "stage_run", stage_run)
        run_step(name, paths=checkout)
        return log, sha256_tree(results(checkout, name))

    return run


def results(paths, name):
    return getattr(paths, name)(CODEC, MLLM)


def stores(paths):
    return paths.root / f".cotam/work/features/{CODEC}-{MLLM}"


@pytest.fixture(scope="module")
def trained(checkout, run):
    """Both stages, undisturbed, with the stage objects that did it: name -> (log, hash, stage)."""
    left_over = stores(checkout) / "0123456789abcdef"
    left_over.mkdir(parents=True)
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        for name, module in (("warmup", step_warmup), ("joint", step_joint)):
            kept = []

            class Kept(adapter_stage.AdapterStage):
                def __init__(self, inputs, kept=kept):
                    super().__init__(inputs)
                    kept.append(self)

            patch.setattr(module, "AdapterStage", Kept)
            if name == "joint":  # its features are there: the codec has nothing to do any more
                patch.setattr(Codec, "reconstruct", None)
            found[name] = (*run(name), kept[0])
    assert not left_over.exists()
    return found


def metrics(paths, name):
    return json.loads((results(paths, name) / "metrics.json").read_text())


def test_the_first_stage_brings_the_low_loss_down(checkout, trained):
    low = trained["warmup"][0].epochs("low")
    assert low[-1] < 0.95 * low[0]
    found = metrics(checkout, "warmup")
    assert found["training"]["low"] == pytest.approx(low[-1])
    assert set(found["validation"]) == set(QUALITIES)
    for measured in found["validation"].values():
        assert measured["low_ratio"] == measured["low"] / measured["low_unadapted"] < 0.99


def test_the_second_stage_brings_the_weighted_loss_down(checkout, trained):
    log = trained["joint"][0]
    assert log.epochs("high")[-1] < 0.8 * log.epochs("high")[0]
    weighted = 0.1 * np.array(log.values["low"]) + np.array(log.values["high"])
    assert np.allclose(log.values["loss"], weighted, rtol=1e-5)
    found = metrics(checkout, "joint")
    assert found["training"]["high"] == pytest.approx(log.epochs("high")[-1])
    for quality in QUALITIES:
        unadapted = [metrics(checkout, name)["validation"][quality]["high_unadapted"] for name in ("warmup", "joint")]
        assert unadapted[0] == unadapted[1]


def test_it_goes_on_from_the_first_stage(checkout, trained):
    warm, joint = (LatentAdapter.load(results(checkout, name) / "adapter") for name in ("warmup", "joint"))
    assert warm.config == joint.config
    stage = trained["joint"][2]
    tower = load_tower(stage.inputs.mllm_weights)
    assert (joint.config.codec, joint.config.tower) == (stage.codec.model_id, tower.identity)
    for name, buffer in warm.named_buffers():
        assert torch.equal(buffer, dict(joint.named_buffers())[name])
    start = trained["joint"][2].new_adapter()
    distance = {
        name: sum(
            (mine - other).square().sum().item()
            for mine, other in zip(joint.parameters(), adapter.parameters(), strict=True)
        )
        for name, adapter in (("warm", warm), ("start", start))
    }
    assert 0 < distance["warm"] < distance["start"]


def test_codec_and_tower_are_frozen(checkout, trained):
    for name in ("warmup", "joint"):
        stage = trained[name][2]
        fresh = adapter_stage.AdapterStage(stage.inputs)
        for mine, other in ((stage.codec.model, fresh.codec.model), (stage.tower, fresh.tower)):
            before = other.state_dict()
            assert all(torch.equal(tensor, before[key]) for key, tensor in mine.state_dict().items())
            assert all(parameter.grad is None for parameter in mine.parameters())


def test_the_high_loss_is_felt_through_the_tower(trained):
    stage = trained["joint"][2]
    adapter, batch = stage.new_adapter(), stage.store.batch(0, np.arange(4))
    for silent in (True, False):
        adapter.zero_grad()
        added = residual(adapter, batch, stage.tower)
        assert silent == (not added.any())
        seen = stage.tower.forward_from_patches(batch["decoded"] + added).consumed_BND
        high_loss(batch["features"], seen).backward()
        reached = {name for name, parameter in adapter.named_parameters() if parameter.grad.any()}
        # A last projection of zero hides what is before it, at the first step only.
        assert reached == {"out_projection.weight", "out_projection.bias"} if silent else len(reached) > 10
        torch.nn.init.normal_(adapter.out_projection.weight, std=0.02)


def test_it_is_the_same_to_the_bit_after_kills_while_filling_and_training(checkout, trained, run, injected):
    (store,) = stores(checkout).iterdir()
    expected = sha256_tree(store)
    shutil.rmtree(stores(checkout))

    assert killed(checkout, "warmup", "import components.training.feature_store as module; name = 'cut'; at = 34")
    (half,) = stores(checkout).iterdir()
    assert half.name == store.name
    assert json.loads((half / "images/filled.json").read_text()) == 32
    log, content = run("warmup")
    assert sha256_tree(store) == expected
    assert content == trained["warmup"][1]
    assert log.steps == trained["warmup"][0].steps

    assert killed(checkout, "joint", "import components.training.loop as module; name = '_report'; at = 150")
    log, content = run("joint")
    injected("training", 2)
    assert log.steps[0] == CHECKPOINT
    assert content == trained["joint"][1]
    assert not (checkout.root / ".cotam/work/joint@elic-micro-llava").exists()


def killed(paths, step, where):
    """Run a step in a process of its own that is killed the `at`-th time that it calls `module.name`."""
    code = f"""
import os, signal
from pathlib import Path
from components.environment import be_quiet
be_quiet()
{where}
original, count = getattr(module, name), 0
def counting(*arguments):
    global count
    count += 1
    if count == at:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments)
setattr(module, name, counting)
from components.paths import Paths
from components.steps import run_step
run_step({step!r}, paths=Paths(Path({str(paths.root)!r})))
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    # `_report` is called only where there is a log; a log without a server takes everything.
    done = subprocess.run([sys.executable, "-c", code], cwd=paths.root, env=environment)
    return done.returncode == -signal.SIGKILL


def test_another_weight_of_the_high_loss_uses_the_same_features(checkout, trained, run):
    before = {path.name for path in stores(checkout).iterdir()}
    params = checkout.root / "params.yaml"
    text = params.read_text()
    params.write_text(
        text.replace("lambda_high: 1.0", "lambda_high: 0.5").replace("joint_epochs: 24", "joint_epochs: 1")
    )
    saved = checkout.root / "saved"
    shutil.copytree(results(checkout, "joint"), saved)
    try:
        assert SETTINGS["adapter.joint_epochs"] == "24"
        log, content = run("joint")
        assert len(log.steps) == STEPS_PER_EPOCH
        assert content != trained["joint"][1]
        assert {path.name for path in stores(checkout).iterdir()} == before
    finally:
        params.write_text(text)
        shutil.rmtree(results(checkout, "joint"))
        saved.rename(results(checkout, "joint"))


def test_the_first_stage_can_be_felt_further_up_the_tower(checkout, trained, run):
    params = checkout.root / "params.yaml"
    text = params.read_text()
    params.write_text(text.replace("warmup_layer: 0", "warmup_layer: 1"))
    saved = checkout.root / "saved"
    shutil.copytree(results(checkout, "warmup"), saved)
    try:
        log, content = run("warmup")
        assert content != trained["warmup"][1]
        shallow = log.epochs("shallow")
        assert shallow[-1] < 0.9 * shallow[0]
        expected = 0.1 * np.array(log.values["low"]) + np.array(log.values["shallow"])
        assert np.allclose(log.values["loss"], expected, rtol=1e-4)
    finally:
        params.write_text(text)
        shutil.rmtree(results(checkout, "warmup"))
        saved.rename(results(checkout, "warmup"))


def test_a_warmed_up_adapter_is_needed(checkout, trained, run):
    adapter = results(checkout, "warmup") / "adapter"
    away = adapter.with_name("away")
    adapter.rename(away)
    try:
        with pytest.raises(CotamError, match=r"needs results/warmup/elic-micro-llava/adapter, .* run `dvc repro`"):
            run("joint")
    finally:
        away.rename(adapter)


def test_a_poisoned_shard_stops_a_stage_before_it_learns(checkout, run, injected):
    shard, params = checkout.shards / "00000.tar", checkout.root / "params.yaml"
    good, settings = shard.read_bytes(), params.read_text()
    before = sha256_tree(checkout.root / "results")
    assert "\nseed: 7\n" in settings
    try:
        shard.write_bytes(good[:2000] + bytes([good[2000] ^ 1]) + good[2001:])
        params.write_text(settings.replace("\nseed: 7\n", "\nseed: 8\n"))  # the features of seed 7 are there already
        with pytest.raises(CotamError, match=r"00000\.tar is not what was written"):
            run("warmup")
        injected("shard")
    finally:
        shard.write_bytes(good)
        params.write_text(settings)
    assert sha256_tree(checkout.root / "results") == before
