"""Training in several processes, as torchrun starts them: what one would have learned, and the same every time."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from components.adapter import AdapterConfig, LatentAdapter
from components.adapter.losses import low_loss
from components.errors import CotamError
from components.paths import ROOT
from components.processes import _first, launch, micro_batch, wanted
from components.training.loop import Schedule, accelerator, train
from tests.test_training_loop import Recorder, Toy

STEPS, EVERY, KILLED_AT = 6, 2, 3


class Seen(Toy):
    """Examples that write down which were asked for, by this process, and may take their time."""

    def __init__(self, file: Path, seconds: float = 0.0):
        self.file, self.seconds = file, seconds

    def batch(self, epoch: int, examples: np.ndarray) -> dict[str, torch.Tensor]:
        time.sleep(self.seconds)
        with self.file.open("a") as file:
            file.write(json.dumps([epoch, [int(number) for number in examples]]) + "\n")
        return super().batch(epoch, examples)


class Killed(Recorder):
    """A log under which one process dies, once."""

    def __init__(self, folder: Path):
        super().__init__()
        self.once = folder / "killed"

    def metric(self, name: str, value: float, step: int | None = None) -> None:
        super().metric(name, value, step)
        if step == KILLED_AT and not self.once.exists():
            self.once.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def learn(folder: Path, learning_rate: float = 3e-3, dies: bool = False, seconds: float = 0.0) -> None:
    """Train in this process, or this process's part; the first one writes what was learned."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    adapter = LatentAdapter(AdapterConfig(latent_channels=4, feature_dim=8, grid=(4, 4), width=16, heads=2))
    schedule = Schedule(epochs=2, batch=5, learning_rate=learning_rate)  # odd, so that shares differ
    log, rank = Killed(folder) if dies else Recorder(), os.environ.get("RANK", "0")

    def loss(model, batch):
        noisy = batch["y_hat"] + 0.01 * torch.rand_like(batch["y_hat"])  # so that random states matter
        low = low_loss(batch["patches"], torch.zeros(1), model(noisy, batch["quality_map"]))
        return low, {"low": low}

    (folder / f"pid-{rank}").write_text(str(os.getpid()))
    examples = Seen(folder / f"seen-{rank}", seconds)
    last = train(adapter, loss, examples, schedule, checkpoint=folder / "checkpoint", every=EVERY, log=log)
    here = accelerator()
    if here.is_main_process:
        save_file(adapter.state_dict(), folder / "adapter")
        told = [step for name, step in log.points if name == "loss"]
        (folder / "said.json").write_text(json.dumps({"last": last, "told": told, "processes": here.num_processes}))


def result(folder: Path) -> tuple[dict[str, torch.Tensor], dict]:
    return load_file(folder / "adapter"), json.loads((folder / "said.json").read_text())


def learned(folder: Path, **settings) -> tuple[dict[str, torch.Tensor], dict]:
    folder.mkdir()
    learn(folder, **settings)
    return result(folder)


def seen(folder: Path) -> list[list[tuple[int, int]]]:
    """Per process: (epoch, example) in the order in which it asked for them."""
    files = sorted(folder.glob("seen-*"))
    lines = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
    return [[(epoch, number) for epoch, numbers in of for number in numbers] for of in lines]


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    """Folders of two trainings in two processes, one of which lost a process: `shared` and `killed`."""
    folder = tmp_path_factory.mktemp("processes")
    command = [sys.executable, "-m", "tests.test_training_processes", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_two_processes_learn_what_one_learns(shared, tmp_path):
    alone, alone_said = learned(tmp_path / "alone")
    start, _ = learned(tmp_path / "start", learning_rate=0.0)
    together, said = result(shared / "shared")
    assert said["processes"] == 2
    apart, way = (sum((alone[name] - other[name]).square().sum() for name in alone) for other in (together, start))
    assert apart < 0.05 * way  # in bfloat16 the order of sums shows, and Muon makes the most of it
    assert said["last"] == pytest.approx(alone_said["last"], rel=0.02)
    [order] = seen(tmp_path / "alone")
    first, second = seen(shared / "shared")
    assert sorted(first + second) == sorted(order)  # the same batches, shared out
    assert not set(first) & set(second) and len(set(order)) == len(order) == 5 * STEPS


def test_the_first_process_alone_writes_and_tells(shared):
    _, said = result(shared / "shared")
    assert said["told"] == list(range(STEPS))
    names = sorted(path.name for path in (shared / "shared").iterdir())
    assert names == ["adapter", "checkpoint", "pid-0", "pid-1", "said.json", "seen-0", "seen-1"]


def test_a_process_that_dies_costs_nothing_but_time(shared, injected):
    undisturbed, _ = result(shared / "shared")
    survived, said = result(shared / "killed")
    assert (shared / "killed" / "killed").exists()
    injected("rank")
    assert said["told"] == list(range(EVERY, STEPS))  # from the last checkpoint on
    assert all(torch.equal(undisturbed[name], survived[name]) for name in undisturbed)


def test_gradients_of_portions_add_up(tmp_path, monkeypatch):
    whole, whole_said = learned(tmp_path / "whole")
    monkeypatch.setenv("COTAM_MICRO_BATCH", "2")
    portions, said = learned(tmp_path / "portions")
    start, _ = learned(tmp_path / "start", learning_rate=0.0)
    apart, way = (sum((whole[name] - other[name]).square().sum() for name in whole) for other in (portions, start))
    assert apart < 0.05 * way
    assert said["last"] == pytest.approx(whole_said["last"], rel=0.02)
    assert seen(tmp_path / "portions") == seen(tmp_path / "whole")
    assert len((tmp_path / "portions/seen-0").read_text().splitlines()) == 3 * STEPS


@pytest.mark.parametrize("value", ["two", "0", "-1"])
def test_a_number_that_is_none_is_one_sentence(monkeypatch, value):
    for variable, ask in (("COTAM_PROCESSES", wanted), ("COTAM_MICRO_BATCH", micro_batch)):
        monkeypatch.setenv(variable, value)
        with pytest.raises(CotamError, match=f"{variable} is '{value}': set it to a whole number"):
            ask()


def test_a_step_that_fails_is_not_started_again(tmp_path):
    # One fails, as a training that diverges does; the other is at work and has to be stopped.
    code = "import os, pathlib, sys, time; rank = os.environ['RANK']; "
    code += f"pathlib.Path({str(tmp_path)!r}, rank).open('a').write('started '); "
    code += "rank == '0' and time.sleep(60); sys.exit(3)"
    with pytest.raises(CotamError, match=r"Process 1 of 2 ended with exit code 3; what it said is above"):
        launch(2, ["-c", code])
    assert (tmp_path / "1").read_text() == "started "
    assert not (tmp_path / "0").exists() or (tmp_path / "0").read_text() == "started "


def test_a_process_that_is_always_killed_is_given_up(monkeypatch, capfd):
    monkeypatch.setattr("components.processes.RESTARTS", 1)
    code = "import os; os.environ['RANK'] == '1' and os.kill(os.getpid(), 9); import time; time.sleep(60)"
    with pytest.raises(CotamError, match=r"killed 2 times; if it was for memory, lower COTAM_MICRO_BATCH"):
        launch(2, ["-c", code])
    assert capfd.readouterr().err.count("Process 1 of 2 was killed (signal 9); all go on from the last") == 1


def test_a_step_that_trains_is_shared_out_where_the_machine_says_so(monkeypatch):
    from components import locks, processes, steps
    from components.cli import main as cotam

    done = []
    monkeypatch.setattr(locks, "die_with_parent", lambda: None)
    monkeypatch.setattr(processes, "launch", lambda count, command: done.append((count, command)))
    monkeypatch.setattr(steps, "run_step", lambda name, *_, **__: done.append(name))
    monkeypatch.setenv("COTAM_PROCESSES", "3")
    monkeypatch.chdir(ROOT)
    assert cotam(["step", "joint", "--codec", "elic"]) == 0
    assert cotam(["step", "rate"]) == 0
    monkeypatch.setenv("RANK", "1")  # one of them
    assert cotam(["step", "joint"]) == 0
    assert done == [(3, ["-m", "components.cli", "step", "joint", "--codec", "elic"]), "rate", "joint"]


def test_the_killed_process_came_first_and_not_who_lost_it():
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

    def failures(**codes):
        found = {}
        for rank, code in codes.items():
            found[int(rank[1:])] = ProcessFailure(int(rank[1:]), 1, code, "")
            found[int(rank[1:])].timestamp = 1000
        return found

    assert _first(failures(r0=1, r1=-9)) == (1, -9)
    assert _first(failures(r0=-15, r1=3)) == (1, 3)
    later = failures(r0=1, r1=-9)
    later[1].timestamp = 1001
    assert _first(later) == (0, 1)


def test_a_step_that_is_not_shared_refuses_to_be(monkeypatch, tmp_path):
    from components.steps import run_step

    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(CotamError, match="rate runs in one process; start it without torchrun"):
        run_step("rate", "elic")


_LEARNS = """
import sys
from pathlib import Path
from components import processes
from tests.test_training_processes import learn

processes.join()
learn(Path(sys.argv[1]), dies=sys.argv[2] == "itself", seconds=float(sys.argv[3]))
"""
_LAUNCHES = "import sys; from components.processes import launch; launch(2, sys.argv[1:])"


def test_a_process_that_dies_as_steps_start_them_costs_nothing_but_time(shared, tmp_path, injected, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = [sys.executable, "-c", _LAUNCHES, "-c", _LEARNS, str(tmp_path), "itself", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "killed").exists() and "was killed (signal 9); all go on from the last" in done.stderr
    injected("rank")
    undisturbed, _ = result(shared / "shared")
    survived, said = result(tmp_path)
    assert said["told"] == list(range(EVERY, STEPS))
    assert all(torch.equal(undisturbed[name], survived[name]) for name in undisturbed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(4))
def test_a_process_that_is_killed_at_a_random_moment(shared, tmp_path, injected, monkeypatch, seed):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    chance, slow = random.Random(seed), 0.5
    command = [sys.executable, "-c", _LAUNCHES, "-c", _LEARNS, str(tmp_path), "nobody", str(slow)]
    with open(tmp_path / "err", "w") as said:
        training = subprocess.Popen(command, cwd=ROOT, stderr=said)
    while not all((tmp_path / f"seen-{rank}").exists() for rank in range(2)):  # its first batch is there
        assert training.poll() is None, (tmp_path / "err").read_text()
        time.sleep(0.05)
    time.sleep(chance.uniform(0, 0.8 * slow * (STEPS - 1)))  # the batches to come take longer than that
    os.kill(int((tmp_path / f"pid-{chance.randrange(2)}").read_text()), signal.SIGKILL)
    assert training.wait(300) == 0, (tmp_path / "err").read_text()
    injected("rank")
    assert "was killed (signal 9); all go on from the last" in (tmp_path / "err").read_text()
    undisturbed, _ = result(shared / "shared")
    survived, _ = result(tmp_path)
    assert all(torch.equal(undisturbed[name], survived[name]) for name in undisturbed)


_LISTENS = """
import json, os, sys
import psutil
import torch
from components import processes

processes.join()
first = processes.FirstWord()
total = torch.ones(1)
torch.distributed.all_reduce(total)  # over the sockets that are looked at
if processes.rank() == 0:
    family = [psutil.Process(), psutil.Process().parent(), *psutil.Process().parent().children()]
    ears = [c.laddr.ip for one in family for c in one.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    with open(sys.argv[1], "w") as out:
        json.dump({"ears": ears, "family": len(family), "total": float(total)}, out)
    first.say(True)
else:
    assert first.hear()
"""


def test_processes_of_one_machine_are_deaf_to_the_network(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "listens.py").write_text(_LISTENS)
    before = dict(os.environ)
    command = [sys.executable, "-c", _LAUNCHES, str(tmp_path / "listens.py"), str(tmp_path / "found.json")]
    subprocess.run(command, check=True, env=before, capture_output=True, timeout=300)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["family"] >= 4 and found["total"] == 2.0
    assert found["ears"] and set(found["ears"]) <= {"127.0.0.1", "::1"}


@pytest.mark.soak
def test_two_processes_run_a_step_to_its_end(tmp_path):
    from components.steps import run_step
    from tests.small_checkout import CODEC, MLLM, scenes, write_checkout, write_shards

    paths = write_checkout(tmp_path, {"adapter.warmup_epochs": "2"})
    write_shards(paths.shards, scenes(20))
    found = []
    for processes in (1, 2):
        if processes == 1:
            run_step("warmup", paths=paths)
        else:
            code = "from components.paths import Path, Paths; from components.steps import run_step; import sys; "
            launch(2, ["-c", f"{code} run_step('warmup', paths=Paths(Path({str(tmp_path)!r})))"])
        folder = paths.warmup(CODEC, MLLM)
        assert sorted(path.name for path in folder.iterdir()) == ["adapter", "metrics.json"]
        found.append(json.loads((folder / "metrics.json").read_text())["validation"]["5"]["low_ratio"])
        assert not any((paths.work / f"warmup@{CODEC}-{MLLM}").glob("*"))
    assert found[1] == pytest.approx(found[0], rel=0.05)


def main(folder: Path) -> None:
    """Train twice in two processes, forked after the imports, with torchrun's own agent and restarts."""
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # docs/cluster.md says why
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name, dies in (("shared", False), ("killed", True)):
        (folder / name).mkdir()
        config = LaunchConfig(
            min_nodes=1, max_nodes=1, nproc_per_node=2, run_id=name, rdzv_backend="c10d", rdzv_endpoint="localhost:0",
            max_restarts=1, monitor_interval=0.1, start_method="fork",
        )  # fmt: skip
        elastic_launch(config, learn)(folder / name, 3e-3, dies)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
