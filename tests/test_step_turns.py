"""Two launches of one step, each in two processes: the second waits as a whole, and nothing is trained twice."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.files import write_json
from components.paths import ROOT, Paths
from components.steps import find, run_step

LIMIT = 120  # seconds, in case something waits for ever


def train(root: Path, name: str) -> None:
    """One process's part of `warmup`; the training is a stand-in that says who it is and ends when it may."""

    def stand_in(inputs) -> None:
        (root / f"{name}-{os.environ['RANK']}").write_text(json.dumps([os.getpid(), inputs.work.name]))
        wait_for(root / f"{name}-may-end")
        for result in ("adapter", "metrics.json"):
            (inputs.out / result).write_text(name)

    module = type(sys)("stand_in")
    module.run = stand_in
    sys.modules[find("warmup").module] = module
    run_step("warmup", paths=Paths(root))


def launched(root: Path, name: str) -> None:
    """As `components.processes.launch`, but with processes that are forked after the imports."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    with open(root / f"{name}.said", "w") as said:
        os.dup2(said.fileno(), 2)
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=2, run_id=name, rdzv_backend="c10d", rdzv_endpoint="localhost:0",
        max_restarts=0, monitor_interval=0.1, start_method="fork",
    )  # fmt: skip
    elastic_launch(config, train)(root, name)


def wait_for(path: Path, text: str = "") -> None:
    limit = time.monotonic() + LIMIT
    while not path.exists() or text not in path.read_text():
        assert time.monotonic() < limit, f"{path.name} does not come, or does not say {text!r}"
        time.sleep(0.05)


def main(root: Path) -> None:
    """`second` comes while `first` is at work; `fourth` while `third` is, of which a process is killed."""
    context = multiprocessing.get_context("fork")

    def launch(name: str) -> multiprocessing.Process:
        process = context.Process(target=launched, args=(root, name))
        process.start()
        return process

    for one, other, killed in (("first", "second", False), ("third", "fourth", True)):
        (root / f"{other}-may-end").touch()
        there = launch(one)
        for rank in range(2):
            wait_for(root / f"{one}-{rank}")
        waits = launch(other)
        wait_for(root / f"{other}.said", "Waiting for another process that is running warmup@elic-micro-llava.")
        if killed:
            os.kill(json.loads((root / f"{one}-0").read_text())[0], signal.SIGKILL)
        else:
            (root / f"{one}-may-end").touch()
        for process in (there, waits):
            process.join(LIMIT)
        write_json(root / f"{other}-codes", [there.exitcode, waits.exitcode])
        (Paths(root).warmup("elic", "micro-llava") / "adapter").rename(root / f"{other}-result")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("turns")
    (root / "components").symlink_to(ROOT / "components")
    (root / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    write_json(root / "data/weights.json", {"codec": {"elic": "1"}, "mllm": {"micro-llava": "2"}, "tower": "3"})
    write_json(root / "data/shards/manifest.json", {})
    command = [sys.executable, "-m", "tests.test_step_turns", str(root)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=4 * LIMIT)
    assert done.returncode == 0, done.stderr
    return root


def test_the_second_launch_waits_as_a_whole_and_trains_nothing_again(root):
    assert json.loads((root / "second-codes").read_text()) == [0, 0]
    assert (root / "second-result").read_text() == "first"
    assert not list(root.glob("second-[01]"))
    assert "Another process has run warmup@elic-micro-llava on the same inputs meanwhile" in (
        root / "second.said"
    ).read_text()


def test_it_goes_on_with_what_a_killed_one_has_left(root):
    lost, ended_well = json.loads((root / "fourth-codes").read_text())
    assert lost != 0 and ended_well == 0
    assert (root / "fourth-result").read_text() == "fourth"
    works = {json.loads((root / f"{name}-{rank}").read_text())[1] for name in ("third", "fourth") for rank in range(2)}
    assert len(works) == 1  # the checkpoints' folder is one


if __name__ == "__main__":
    main(Path(sys.argv[1]))
