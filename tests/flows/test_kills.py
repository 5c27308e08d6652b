"""SIGKILL in the middle: the same command again ends with the same results, and nothing is registered by half."""

import contextlib
import random
import signal
import time
from concurrent.futures import Future, ThreadPoolExecutor

import psutil
import pytest

from components.files import sha256_tree
from flows import processes, services
from tests.flows.conftest import ended, run_deployment, start_demo
from tests.flows.test_demo import experiments, hashes
from tests.pipeline_project import clone, dvc, ledger

MODELS = ("cotam-codec-elic", "cotam-adapter-elic-micro-llava")


def stage_processes(project):
    """The running stages of `project`."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cmdline()[1:2] == ["step.py"] and process.cwd() == str(project):
                found.append(process)
        except psutil.Error:
            continue
    return found


def kill_stage(project):
    [stage] = stage_processes(project)
    stage.kill()


def kill_service(name):
    def kill(project):
        psutil.Process(services.status(project)[name]["pid"]).kill()

    return kill


KILL = {"stage": kill_stage, "worker": kill_service("worker"), "prefect": kill_service("prefect")}
KILLED = {"both": ["worker", "prefect"]}  # where it is not what the kill is called


@pytest.fixture
def setting(running):
    """Change adapter.lambda_high for one test, so that `joint` and what depends on it must run."""
    path = running / "params.yaml"
    before = path.read_text()

    def change(value):
        assert "lambda_high: 1.0\n" in before
        path.write_text(before.replace("lambda_high: 1.0\n", f"lambda_high: {value}\n"))

    yield change
    path.write_text(before)
    (running.parent / "hold").unlink(missing_ok=True)


def hold_joint(project):
    """Have the next `joint` go on only when `hold` is taken away, so that a kill always hits a run."""
    (project.parent / "hold").touch()
    (project.parent / "running").unlink(missing_ok=True)


def kill_while_joint_runs(project, what, injected):
    """Start the demo, kill something once `joint` is at work, and return the demo as it ended."""
    hold_joint(project)
    process = start_demo(project)
    try:
        await_joint(project, process)
        KILL[what](project)
        for one in KILLED.get(what, [what]):
            injected(one)
        return ended(process)
    finally:
        process.kill()


def kill_at_a_random_moment(project, seed, kind, injected):
    """Kill all processes of one kind some time after `joint` has begun, and let the same command finish the work."""
    wait = random.Random(seed).uniform(0, 20)
    print(f"{kind} is killed {wait:.1f} s after joint has begun")
    hold_joint(project)
    process = start_demo(project)
    try:
        await_joint(project, process)
        time.sleep(wait)
        assert process.poll() is None
        marked = [] if kind in ("demo", "stage") else processes.marked(project, kind)
        victims = {"demo": [psutil.Process(process.pid)], "stage": stage_processes(project)}.get(kind, marked)
        assert victims
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
        injected(kind)
        (project.parent / "hold").unlink()
        ended(process)
    finally:
        process.kill()
    again = ended(start_demo(project))
    assert again.code == 0, again.out + again.err
    assert stage_processes(project) == []


def await_joint(project, run):
    """Wait until the demo (a process) or flow (a future) that is `run` has `joint` at work."""
    flow, deadline = isinstance(run, Future), time.monotonic() + 300
    while not (project.parent / "running").exists():
        over = run.done() if flow else run.poll() is not None
        assert not over and time.monotonic() < deadline, run.result() if flow else ended(run)
        time.sleep(0.2)


def finish(project):
    """The same command again, undisturbed. What is left of a killed run is held until its own `joint` is at work."""
    (project.parent / "running").unlink(missing_ok=True)
    process = start_demo(project)
    try:
        await_joint(project, process)
        (project.parent / "hold").unlink()
        last = ended(process)
    finally:
        process.kill()
    assert last.code == 0, last.out + last.err
    assert stage_processes(project) == []


def registered(project):
    """The versions in the registry: name -> hash of their content -> version."""
    from mlflow import MlflowClient

    client = MlflowClient(services.urls(project)["mlflow"])
    found = {name: client.search_model_versions(f"name = '{name}'") for name in MODELS}
    return {name: {one.tags["content_hash"]: one for one in versions} for name, versions in found.items()}, found


def check(project, tmp_path):
    """What `project` holds is what an undisturbed `dvc repro` makes, and its registry is whole."""
    other = clone(project, tmp_path / "undisturbed")
    (other / "params.yaml").write_text((project / "params.yaml").read_text())
    (other.parent / "hold").unlink(missing_ok=True)
    dvc(other, "repro")
    ledger(project)
    assert hashes(other) == hashes(project)
    by_content, versions = registered(project)
    assert {name: len(found) for name, found in versions.items()} == {n: len(f) for n, f in by_content.items()}
    assert sha256_tree(project / "results/joint/elic-micro-llava/adapter") in by_content[MODELS[1]]


def kill_prefect_and_worker(project):
    KILL["worker"](project)
    KILL["prefect"](project)


def test_kills_and_the_same_command_again(running, setting, tmp_path, monkeypatch, injected):
    monkeypatch.setitem(KILL, "both", kill_prefect_and_worker)
    services.up(running)
    setting(0.25)
    ledger(running)

    first = kill_while_joint_runs(running, "stage", injected)
    assert first.code == 1
    assert "The last lines of joint@elic-micro-llava:\n    Running stage 'joint@elic-micro-llava':" in first.out
    log = running / ".cotam/run/worker.log"
    assert first.err == f"Stage joint@elic-micro-llava failed: its last lines are above, the whole log is {log}.\n"
    assert ledger(running) == []  # neither joint nor the report that needs it

    again = kill_while_joint_runs(running, "both", injected)
    assert again.code == 1
    assert again.err in {
        f"The service {name} has ended (see {running}/.cotam/run/{name}.log): "
        f"run the same command again, it goes on where it was.\n"
        for name in ("prefect", "worker")
    }
    assert ledger(running) == []

    finish(running)
    assert ledger(running) == ["joint", "report"]  # exactly what depends on the setting
    check(running, tmp_path)
    _, runs = experiments(running)
    assert [run["info"]["status"] for run in runs[:3]] == ["FINISHED", "KILLED", "FAILED"]


def test_a_stage_that_fails_is_tried_again_where_asked(running, setting, tmp_path, injected):
    services.up(running)
    setting(0.75)
    ledger(running)
    hold_joint(running)
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(run_deployment, running, "train-and-eval/local", project=str(running), retries=1)
        await_joint(running, run)
        kill_stage(running)
        injected("stage")
        (running.parent / "hold").unlink()
        assert "Completed" in run.result()
    assert ledger(running) == ["joint", "report"]
    check(running, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize(("number", "what"), list(enumerate(KILL)))
@pytest.mark.parametrize("times", [1, 2])
def test_one_kill_and_the_same_command_again(running, setting, tmp_path, injected, number, what, times):
    services.up(running)
    setting(2 + number + 10 * times)
    ledger(running)
    for _ in range(times):
        assert kill_while_joint_runs(running, what, injected).code == 1
    finish(running)
    assert ledger(running) == ["joint", "report"]
    check(running, tmp_path)


@pytest.mark.soak
def test_a_demo_that_was_killed_leaves_nothing_to_the_next(running, setting, tmp_path, injected):
    services.down(running)
    setting(7)
    ledger(running)
    hold_joint(running)
    process = start_demo(running)
    await_joint(running, process)
    process.send_signal(signal.SIGKILL)
    injected("demo")
    process.communicate()
    finish(running)
    assert {one["state"] for one in services.status(running).values()} == {"stopped"}
    assert ledger(running) == ["joint", "report"]
    services.up(running)
    check(running, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize(("seed", "kind"), list(enumerate(["demo", "stage", *services.NAMES])))
def test_a_kill_of_anything_at_a_random_moment(running, setting, tmp_path, injected, seed, kind):
    services.up(running)
    setting(100 + seed)
    kill_at_a_random_moment(running, seed, kind, injected)
    check(running, tmp_path)


@pytest.mark.soak
def test_two_people_start_the_same_pipeline_at_once(running, setting, tmp_path, injected):
    services.up(running)
    setting(0.0625)
    ledger(running)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(run_deployment, running, "train-and-eval/local", project=str(running)) for _ in range(2)]
        assert all("Completed" in one.result() for one in both)
    injected("two-starts")
    assert ledger(running) == ["joint", "report"]  # once, not twice
    check(running, tmp_path)
    _, runs = experiments(running)
    assert [run["info"]["status"] for run in runs[:2]] == ["FINISHED", "FINISHED"]
