"""The training loop: it learns, it is a function of its seed, and a kill leaves no trace in the weights."""

import hashlib
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from components.adapter import AdapterConfig, LatentAdapter
from components.adapter.losses import low_loss
from components.errors import CotamError
from components.training.checkpoint import load_checkpoint
from components.training.loop import Schedule, train
from components.training.optimizer import make_optimizers

SCHEDULE = Schedule(epochs=2, batch=4, learning_rate=3e-3)
KILLED_AT, EVERY = 6, 4


class Toy:
    """Latents, and targets that depend on them."""

    def __len__(self) -> int:
        return 18

    def order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng(epoch).permutation(18)

    def batch(self, epoch: int, examples: np.ndarray) -> dict[str, torch.Tensor]:
        latents = torch.stack([torch.randn(4, 4, 4, generator=torch.Generator().manual_seed(int(i))) for i in examples])
        targets = latents.flatten(2).transpose(1, 2).repeat(1, 1, 2)
        return {"y_hat": latents, "quality_map": torch.full((len(examples), 4, 4), epoch % 10), "patches": targets}


class Killer:
    """A log under which the process dies at one step."""

    def metric(self, name: str, value: float, step: int | None = None) -> None:
        if step == KILLED_AT:
            os.kill(os.getpid(), signal.SIGKILL)


class FullDisk:
    """A log under which the disk fills up at one step: no file may grow beyond 100 bytes any more."""

    def metric(self, name: str, value: float, step: int | None = None) -> None:
        if step == KILLED_AT:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


class Recorder:
    def __init__(self):
        self.points: list[tuple[str, int]] = []

    def metric(self, name: str, value: float, step: int | None = None) -> None:
        self.points.append((name, step))


def run(checkpoint: Path, log=None, schedule: Schedule = SCHEDULE) -> tuple[str, dict[str, float]]:
    """Train a tiny adapter; return the hash of its weights and the last epoch's losses."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    adapter = LatentAdapter(AdapterConfig(latent_channels=4, feature_dim=8, grid=(4, 4), width=16, heads=2))

    def loss(model, batch):
        low = low_loss(batch["patches"], torch.zeros(1), model(batch["y_hat"], batch["quality_map"]))
        return low, {"low": low}

    last = train(adapter, loss, Toy(), schedule, checkpoint=checkpoint, every=EVERY, log=log)
    digest = hashlib.sha256()
    for name, tensor in adapter.state_dict().items():
        digest.update(name.encode() + tensor.detach().numpy().tobytes())
    return digest.hexdigest(), last


def test_a_killed_training_resumes_to_the_same_bits(tmp_path, injected):
    undisturbed = run(tmp_path / "undisturbed")

    code = f"from tests.test_training_loop import *; run(Path({str(tmp_path / 'killed')!r}), Killer())"
    root = Path(__file__).resolve().parents[1]
    killed = subprocess.run([sys.executable, "-c", code], cwd=root, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert killed.returncode == -signal.SIGKILL
    injected("training")
    assert [path.name for path in tmp_path.iterdir() if path.name != "undisturbed"] == ["killed"]

    log = Recorder()
    assert run(tmp_path / "killed", log) == undisturbed
    assert log.points[0] == ("loss", EVERY)


def test_a_full_disk_costs_the_steps_since_the_last_checkpoint(tmp_path, injected):
    undisturbed = run(tmp_path / "undisturbed")
    (tmp_path / "full").mkdir()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(CotamError, match=r"checkpoint cannot be written \(File too large\); free some"):
            run(tmp_path / "full/checkpoint", FullDisk())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    injected("full-training")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["checkpoint"]
    log = Recorder()
    assert run(tmp_path / "full/checkpoint", log) == undisturbed
    assert log.points[0] == ("loss", EVERY)


def test_it_learns_and_reports(tmp_path):
    log = Recorder()
    _, first = run(tmp_path / "a", log, Schedule(epochs=1, batch=4, learning_rate=3e-3))
    _, last = run(tmp_path / "b", None, Schedule(epochs=12, batch=4, learning_rate=1e-2))
    assert set(first) == {"loss", "low"}
    assert last["low"] < 0.7 * first["low"]
    assert {name for name, _ in log.points} == {"loss", "low", "learning_rate"}
    assert [step for name, step in log.points if name == "loss"] == [0, 1, 2, 3]


def test_a_finished_training_is_not_repeated(tmp_path):
    finished = run(tmp_path / "checkpoint")
    log = Recorder()
    assert run(tmp_path / "checkpoint", log) == finished
    assert not log.points


def test_a_diverged_training_is_said_and_leaves_the_last_good_checkpoint(tmp_path):
    class Overflow(Toy):
        def batch(self, epoch: int, examples: np.ndarray) -> dict[str, torch.Tensor]:
            return super().batch(epoch, examples) | ({"patches": torch.tensor(float("inf"))} if epoch else {})

    adapter = LatentAdapter(AdapterConfig(latent_channels=4, feature_dim=8, grid=(4, 4), width=16, heads=2))

    def loss(model, batch):
        return low_loss(batch["patches"], torch.zeros(1), model(batch["y_hat"], batch["quality_map"])), {}

    with pytest.raises(CotamError, match="diverged: at step 4 the loss is no number; lower the learning rate"):
        train(adapter, loss, Overflow(), SCHEDULE, checkpoint=tmp_path / "checkpoint", every=2)
    position = load_checkpoint((tmp_path / "checkpoint").read_bytes(), adapter, make_optimizers(adapter, 0.01))
    assert position["step"] == 4
    assert all(parameter.isfinite().all() for parameter in adapter.parameters())


@pytest.mark.parametrize("steps", [1, 20, 1000])
def test_the_learning_rate_rises_then_falls(steps):
    schedule = Schedule(epochs=1, batch=1, learning_rate=0.5)
    rates = [schedule.rate(step, steps) for step in range(steps)]
    assert max(rates) == 0.5
    assert all(rate > 0 for rate in rates)
    top = rates.index(0.5)
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_two_stages_can_share_one_schedule():
    whole = [Schedule(epochs=5, batch=1, learning_rate=0.5).rate(step, 30) for step in range(150)]
    first, second = (Schedule(epochs, 1, 0.5, before, 5 - before - epochs) for epochs, before in ((3, 0), (2, 3)))
    assert [first.rate(step, 30) for step in range(90)] + [second.rate(step, 30) for step in range(60)] == whole
