"""Training from shards on S3, through a store that fails one request in ten, learns what local shards teach.

To the bit, also when the process was killed in the middle of an epoch.
"""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from components.data import ShardReader
from components.data.linking import link_shards
from components.files import sha256_tree
from components.paths import ROOT
from components.steps import run_step
from components.training.loop import Schedule, train
from flows import s3_store, services
from tests.faulty_proxy import faulty_proxy
from tests.small_checkout import CODEC, MLLM, scenes, write_checkout, write_shards

IMAGES, BATCH, EVERY, KILLED_AT = 42, 4, 3, 16  # the second epoch begins with step 10
URL = f"s3://{s3_store.BUCKET}/training/shards"


@pytest.fixture
def proxy(stores, s3, monkeypatch):
    """The faults; everyone's AWS_ENDPOINT_URL is the faulty proxy, and nothing is kept here."""
    with faulty_proxy(services.status(stores[0])["s3"]["url"], 0.1) as (url, faulty):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        monkeypatch.setenv("COTAM_SHARD_CACHE", "0")
        yield faulty


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("local") / "shards", scenes(IMAGES))


@pytest.fixture
def link(local, s3, proxy, tmp_path):
    for path in local.iterdir():
        s3.upload_file(str(path), s3_store.BUCKET, f"training/shards/{path.name}")
    link_shards(URL, tmp_path / "link")
    return tmp_path / "link"


class Pictures:
    """Pixels, read as they are learned from."""

    def __init__(self, shards: Path):
        self.reader = ShardReader(shards, seed=2)

    def __len__(self) -> int:
        return len(self.reader)

    def order(self, epoch: int) -> np.ndarray:
        return self.reader.order(epoch)

    def batch(self, epoch: int, examples: np.ndarray) -> dict[str, torch.Tensor]:
        pixels = np.stack([np.asarray(image) for image in self.reader.read(examples)])
        return {"pixels": torch.from_numpy(pixels).float() / 255}


class Killer:
    def metric(self, name: str, value: float, step: int | None = None) -> None:
        if name == "loss" and step == KILLED_AT:
            os.kill(os.getpid(), signal.SIGKILL)


class Recorder:
    def __init__(self):
        self.steps: list[int] = []

    def metric(self, name: str, value: float, step: int | None = None) -> None:
        if name == "loss":
            self.steps.append(step)


def learn(shards: Path, checkpoint: Path, log=None) -> str:
    """Train a model on every picture, and return the hash of its weights."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 8, 8), torch.nn.GELU(), torch.nn.ConvTranspose2d(4, 3, 8, 8))

    def loss(model, batch):
        pixels_B3HW = batch["pixels"].permute(0, 3, 1, 2)
        return (model(pixels_B3HW) - pixels_B3HW).square().mean(), {}

    train(model, loss, Pictures(shards), Schedule(2, BATCH, 1e-2), checkpoint=checkpoint, every=EVERY, log=log)
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.detach().numpy().tobytes())
    return digest.hexdigest()


def test_a_training_killed_within_an_epoch_goes_on_from_s3_to_the_weights_of_local_shards(
    link, local, proxy, tmp_path, injected
):
    expected = learn(local, tmp_path / "undisturbed")
    code = (
        "import sys; from pathlib import Path; from tests.flows.test_s3_training import *\n"
        "learn(Path(sys.argv[1]), Path(sys.argv[2]), Killer())"
    )
    command = [sys.executable, "-c", code, str(link), str(tmp_path / "killed")]
    assert subprocess.run(command, cwd=ROOT, env=os.environ, check=False).returncode == -signal.SIGKILL
    injected("training")
    log = Recorder()
    assert learn(link, tmp_path / "killed", log) == expected
    assert log.steps == list(range(KILLED_AT - KILLED_AT % EVERY, 2 * (IMAGES // BATCH)))
    assert proxy.faults() >= 5, proxy.counts
    injected("requests", proxy.faults())


def test_the_adapter_is_the_same_from_s3(link, local, proxy, tmp_path):
    found = []
    for name, shards in (("local", local), ("s3", link)):
        (tmp_path / name).mkdir()
        paths = write_checkout(tmp_path / name, {"adapter.warmup_epochs": "1"})
        paths.shards.parent.mkdir(exist_ok=True)
        paths.shards.symlink_to(shards)
        run_step("warmup", paths=paths)
        found.append(sha256_tree(paths.warmup(CODEC, MLLM)))
    assert found[0] == found[1]
    assert proxy.counts["fine"] >= 5
