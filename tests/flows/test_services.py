"""Starting, healing and stopping the services, and what stands in the way."""

import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace

import psutil
import pytest

from components.errors import CotamError
from components.paths import ROOT
from flows import demo, processes, services
from flows.processes import Identity, Service
from flows.service_options import Options

MANAGE = [sys.executable, "-m", "flows.services"]


def manage(action, project, **environment):
    return subprocess.run(
        [*MANAGE, action, "--project", str(project)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


def pids(project):
    return {name: service["pid"] for name, service in services.status(project).items()}


@pytest.fixture
def listener():
    """A port on which another program listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


@pytest.mark.parametrize(
    ("variable", "title"), [("COTAM_PREFECT_PORT", "Prefect"), ("COTAM_MLFLOW_PORT", "MLflow")]
)
@pytest.mark.parametrize("command", [lambda *rest: services.main(["up", *rest]), lambda *rest: demo.main(list(rest))])
def test_a_taken_port_is_one_sentence(tmp_path, listener, monkeypatch, capsys, variable, title, command):
    other = next(name for name in ("COTAM_PREFECT_PORT", "COTAM_MLFLOW_PORT") if name != variable)
    monkeypatch.setenv(variable, str(listener))
    monkeypatch.setenv(other, str(free := _free()))
    assert free != listener
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signal, "signal", lambda *_: None)  # pytest has its own
        assert command("--project", str(tmp_path)) == 1
    assert capsys.readouterr().err == (
        f"Port {listener}, which {title} is to use, is taken by another program: "
        f"stop that program, or set {variable} to a free port.\n"
    )
    assert [process for name in services.NAMES for process in processes.marked(tmp_path, name)] == []


@pytest.mark.parametrize("value", ["web", "0", "65536", ""])
def test_a_port_that_is_no_port_is_one_sentence(tmp_path, monkeypatch, capsys, value):
    monkeypatch.setenv("COTAM_MLFLOW_PORT", value)
    monkeypatch.setenv("COTAM_PREFECT_PORT", str(_free()))
    assert services.main(["up", "--project", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        f"COTAM_MLFLOW_PORT is {value!r}: set it to a port number from 1 to 65535.\n"
    )


def test_status_of_what_never_ran(tmp_path):
    done = manage("status", tmp_path)
    assert done.returncode == 1
    assert done.stdout.split() == ["prefect", "stopped", "mlflow", "stopped", "worker", "stopped"]


def test_nothing_listens_beyond_loopback(running):
    services.up(running)
    listening = {
        connection.laddr.ip
        for name in services.NAMES
        for process in processes.marked(running, name)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


def test_other_options_than_those_of_running_services_are_refused(running):
    services.up(running)
    with pytest.raises(CotamError, match="stop them first with `cotam services down`"):
        services.up(running, options=Options(auth=True))


def test_up_leaves_alone_what_runs(running):
    before = pids(running)
    done = manage("up", running)
    assert done.returncode == 0, done.stderr
    assert pids(running) == before
    assert done.stdout.splitlines()[0].split() == ["prefect", "running", services.urls(running)["prefect"]]
    assert manage("status", running).returncode == 0


@pytest.mark.soak
def test_what_fails_meanwhile_leaves_the_services_to_the_next(running):
    before = pids(running)

    def fails():
        raise CotamError("no deployment")

    with pytest.raises(CotamError, match="no deployment"):
        services.up(running, meanwhile=fails)
    services.up(running)  # the lock is free
    assert pids(running) == before


def test_a_dead_mlflow_is_healed_and_nothing_else_is_touched(running, injected):
    services.up(running)
    before = pids(running)
    psutil.Process(before["mlflow"]).kill()
    psutil.Process(before["mlflow"]).wait(10)
    injected("mlflow")
    assert services.status(running)["mlflow"]["state"] == "dead"
    services.up(running)
    after = pids(running)
    assert after["mlflow"] != before["mlflow"]
    assert {**after, "mlflow": 0} == {**before, "mlflow": 0}
    assert {service["state"] for service in services.status(running).values()} == {"running"}
    assert len({process.pid for process in processes.marked(running, "mlflow")} & set(before.values())) == 0


def test_another_demo_is_not_disturbed(running):
    services.up(running)
    before, me = pids(running), Identity.of(os.getpid())
    try:
        for service in services.recorded(running):
            replace(service, owner=me).save(services.run_folder(running))
        command = [sys.executable, "-m", "flows.demo", "--project", str(running)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 1
        assert done.stderr == f"Another demo is running here (process {me.pid}): wait for it, or stop it.\n"
        assert pids(running) == before
    finally:
        for service in services.recorded(running):
            replace(service, owner=None).save(services.run_folder(running))


def test_services_of_a_dead_owner_are_cleared_away_before_any_is_started(tmp_path, listener, monkeypatch):
    with subprocess.Popen(["true"]) as owner:
        gone = Identity.of(owner.pid)
    left = processes.start("worker", ["sh", "-c", "sleep 1000 & sleep 1000"], tmp_path, tmp_path / "log", {})
    try:
        Service("worker", left, gone, None, str(tmp_path / "log")).save(services.run_folder(tmp_path))
        assert services.status(tmp_path)["worker"]["state"] == "running"
        monkeypatch.setenv("COTAM_PREFECT_PORT", str(listener))  # so that nothing new is started either
        with pytest.raises(CotamError, match="is taken"):
            services.up(tmp_path)
        assert not left.alive() and processes.marked(tmp_path, "worker") == []
        assert services.recorded(tmp_path) == []
    finally:
        processes.end(tmp_path, "worker")


def test_down_ends_the_services_of_its_own_project_only(tmp_path):
    left = processes.start("worker", ["sleep", "1000"], tmp_path, tmp_path / "log", {})
    try:
        Service("worker", left, Identity.of(os.getpid()), None, "").save(services.run_folder(tmp_path))
        other = tmp_path / "other"
        other.mkdir()
        assert services.down(other) is False
        assert left.alive()
        assert services.down(tmp_path) is True
        assert not left.alive()
    finally:
        processes.end(tmp_path, "worker")


def test_a_recycled_process_number_is_nobody_we_know():
    me = Identity.of(os.getpid())
    assert me.alive()
    assert not replace(me, started=me.started - 60).alive()


def _free():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
