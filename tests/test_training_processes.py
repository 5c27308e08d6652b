"""Training in several processes, as torchrun starts them: what one would have learned, and the same every time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from components.adapter import AdapterConfig, LatentAdapter
from components.adapter.losses import low_loss
from components.paths import ROOT
from components.training.loop import Schedule, accelerator, train
from tests.test_training_loop import Recorder, Toy

STEPS = 6


def learn(folder: Path, learning_rate: float = 3e-3) -> None:
    """Train in this process, or this process's part; the first one writes what was learned."""
    torch.manual_seed(0)
    adapter = LatentAdapter(AdapterConfig(latent_channels=4, feature_dim=8, grid=(4, 4), width=16, heads=2))
    log, schedule = Recorder(), Schedule(epochs=2, batch=5, learning_rate=learning_rate)  # odd, so that shares differ

    def loss(model, batch):
        low = low_loss(batch["patches"], torch.zeros(1), model(batch["y_hat"], batch["quality_map"]))
        return low, {"low": low}

    last = train(adapter, loss, Toy(), schedule, checkpoint=folder / "checkpoint", every=4, log=log)
    here = accelerator()
    if here.is_main_process:
        save_file(adapter.state_dict(), folder / "adapter")
        told = [step for name, step in log.points if name == "loss"]
        (folder / "said.json").write_text(json.dumps({"last": last, "told": told, "processes": here.num_processes}))


def learned(folder: Path, processes: int, **settings):
    folder.mkdir()
    if processes == 1:
        learn(folder, **settings)
    else:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        done = subprocess.run(
            [*command, "-m", "tests.test_training_processes", folder], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["adapter", "checkpoint", "said.json"]
    said = json.loads((folder / "said.json").read_text())
    assert said["processes"] == processes
    assert said["told"] == list(range(STEPS)), "the first process alone tells"
    return load_file(folder / "adapter"), said["last"]


def test_two_processes_learn_what_one_learns(tmp_path):
    alone, alone_last = learned(tmp_path / "alone", 1)
    shared, shared_last = learned(tmp_path / "shared", 2)
    again, _ = learned(tmp_path / "again", 2)
    assert all(torch.equal(shared[name], again[name]) for name in alone)
    start, _ = learned(tmp_path / "start", 1, learning_rate=0.0)
    apart, way = (sum((alone[name] - other[name]).square().sum() for name in alone) for other in (shared, start))
    assert apart < 0.05 * way  # in bfloat16 the order of sums shows, and Muon makes the most of it
    assert shared_last == pytest.approx(alone_last, rel=0.02)


if __name__ == "__main__":
    learn(Path(sys.argv[1]))
