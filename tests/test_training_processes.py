"""Training in several processes: what one would have learned, the same every time, and nothing left behind."""

import os
import signal
from functools import partial

import pytest
import torch

from components.adapter import AdapterConfig, LatentAdapter
from components.adapter.losses import low_loss
from components.errors import CotamError
from components.training.loop import Schedule, accelerator, train
from components.training.processes import together
from tests.test_training_loop import Recorder, Toy

SCHEDULE = Schedule(epochs=2, batch=5, learning_rate=3e-3)  # an odd batch, so that shares differ


def learn(folder, processes: int, log=None, schedule=SCHEDULE) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    torch.manual_seed(0)
    adapter = LatentAdapter(AdapterConfig(latent_channels=4, feature_dim=8, grid=(4, 4), width=16, heads=2))
    last = {}

    def loss(model, batch):
        low = low_loss(batch["patches"], torch.zeros(1), model(batch["y_hat"], batch["quality_map"]))
        return low, {"low": low}

    def work():
        last.update(train(adapter, loss, Toy(), schedule, checkpoint=folder / "checkpoint", every=4, log=log))

    folder.mkdir()
    together(work, processes, folder / "meeting")
    assert [path.name for path in folder.iterdir()] == ["checkpoint"]
    return adapter.state_dict(), last


def test_two_processes_learn_what_one_learns(tmp_path):
    log = Recorder()
    alone, alone_last = learn(tmp_path / "alone", 1)
    shared, shared_last = learn(tmp_path / "shared", 2, log)
    again, _ = learn(tmp_path / "again", 2)
    assert all(torch.equal(shared[name], again[name]) for name in alone)
    start = learn(tmp_path / "start", 1, schedule=Schedule(epochs=1, batch=18, learning_rate=0.0))[0]
    apart, way = (sum((alone[name] - other[name]).square().sum() for name in alone) for other in (shared, start))
    assert apart < 0.05 * way  # in bfloat16 the order of sums shows, and Muon makes the most of it
    assert shared_last == pytest.approx(alone_last, rel=0.02)
    assert [step for name, step in log.points if name == "loss"] == list(range(6)), "the first process alone tells"


def test_afterwards_this_process_is_alone_again(tmp_path):
    before = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    threads = torch.get_num_threads()
    sizes = []
    together(lambda: sizes.append(accelerator().num_processes), 3, tmp_path / "meeting")
    assert sizes == [3]
    assert accelerator().num_processes == 1
    assert torch.get_num_threads() == threads
    assert {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"} == before


def die(second: bool) -> None:
    here = accelerator()
    if second and here.process_index == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    here.reduce(torch.ones(1))


def test_a_process_that_was_killed_is_one_sentence(tmp_path):
    with pytest.raises(CotamError, match="A training process was killed"):
        together(partial(die, True), 2, tmp_path / "meeting")
    together(partial(die, False), 2, tmp_path / "meeting")


def test_an_error_of_ours_comes_through(tmp_path):
    def fail():
        accelerator()
        raise CotamError("no")

    with pytest.raises(CotamError, match=r"^no$"):
        together(fail, 2, tmp_path / "meeting")
