"""One small project, one demo of it from nothing, and one set of running services, for all tests in this folder.

Starting the services costs 15 to 60 seconds and a stage costs about ten, so the tests share them. Each test sets what
it needs and asks only for what holds in any order.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL

from components.errors import CotamError
from components.paths import ROOT
from flows import processes, service_launch
from flows import services as flow_services
from flows.service_options import Options
from tests import pipeline_project

_WATCH_NETWORK = '''
import sys

def hook(event, args):
    if event in ("socket.connect", "socket.getaddrinfo"):
        where = args[1] if event == "socket.connect" else args
        host = where[0] if isinstance(where, tuple) else "a socket file"
        with open({log!r}, "a") as log:
            log.write(f"{{host}} {{' '.join(sys.argv[:3])}}\\n")

sys.addaudithook(hook)
'''


@dataclass
class Demo:
    """A demo that has ended: its exit code and what it printed."""

    code: int
    out: str
    err: str


def free_port() -> int:
    """A port that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_demo(project: Path) -> subprocess.Popen:
    """`make demo` of another checkout."""
    command = [sys.executable, "-m", "flows.demo", "--project", str(project)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen) -> Demo:
    """Wait for a demo."""
    out, err = process.communicate(timeout=600)
    return Demo(process.returncode, out, err)


def run_deployment(of: Path, deployment: str, /, **parameters) -> str:
    """`prefect deployment run DEPLOYMENT --watch` against the services of a project, and what it prints."""
    command = [sys.executable, "-m", "prefect", "deployment", "run", deployment, "--watch"]
    for key, value in parameters.items():
        command += ["--param", f"{key}={json.dumps(value)}"]
    # No more than a user's own shell has: prefect.toml and the server must keep Prefect quiet by themselves.
    needed = {key: flow_services.environment(of)[key] for key in ("PREFECT_API_URL", "PREFECT_HOME")}
    environment = {key: value for key, value in os.environ.items() if key != "DO_NOT_TRACK"} | needed
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="package")
def network(tmp_path_factory) -> Iterator[Path]:
    """A file that names every host that a Python process started by these tests has looked up or connected to."""
    folder = tmp_path_factory.mktemp("network")
    (folder / "sitecustomize.py").write_text(_WATCH_NETWORK.format(log=str(folder / "hosts")))
    with pytest.MonkeyPatch.context() as patch:
        search = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        patch.setenv("PYTHONPATH", os.pathsep.join(search))
        yield folder / "hosts"


@pytest.fixture(scope="package")
def project(tmp_path_factory, network) -> Iterator[Path]:
    """The project of `tests/pipeline_project.py`, on ports of its own."""
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("COTAM_PREFECT_PORT", "COTAM_MLFLOW_PORT"):
            patch.setenv(variable, str(free_port()))
        for variable in flow_services.environment(ROOT):  # of services that the person who tests has running
            if variable not in ("NO_PROXY", "no_proxy"):
                patch.delenv(variable, raising=False)
        made = pipeline_project.make(tmp_path_factory.mktemp("pipeline"))
        yield made
        flow_services.down(made)


@dataclass
class FirstDemo(Demo):
    """The demo of a project that had never run: also which stages ran, and what it left running."""

    ran: list[str]
    left: list[str]


@pytest.fixture(scope="package")
def first_demo(project) -> FirstDemo:
    """The demo, from nothing to the end."""
    done = ended(start_demo(project))
    left = [str(process) for name in flow_services.NAMES for process in processes.marked(project, name)]
    return FirstDemo(done.code, done.out, done.err, pipeline_project.ledger(project), left)


@pytest.fixture(scope="package")
def running(project, first_demo) -> Iterator[Path]:
    """The project after its first demo, with its services running."""
    assert first_demo.code == 0, first_demo.out + first_demo.err
    flow_services.up(project)
    yield project
    flow_services.down(project)


@pytest.fixture
def demo(running) -> Callable[[], Demo]:
    """Run another demo of `running` to its end."""
    flow_services.up(running)  # in case another test has killed some
    return lambda: ended(start_demo(running))


@pytest.fixture(scope="package")
def stores(tmp_path_factory) -> Iterator[tuple[Path, Options]]:
    """PostgreSQL and S3 of a project, started as `cotam services up` starts them."""
    project, options = tmp_path_factory.mktemp("stores"), Options(postgres=True, s3=True)
    folder = service_launch.run_folder(project)
    folder.mkdir(parents=True)
    options.save(folder)
    ports = {name: free_port() for name in ("postgres", "s3", "prefect", "mlflow")}
    try:
        for name in ("postgres", "s3"):
            try:
                service_launch.prepare(project, name)
            except CotamError as error:  # infra/services.sh could not install it
                pytest.skip(str(error))
            service = service_launch.start(project, name, ports, options, {})
            service.save(folder)
            flow_services.wait_ready(project, service)
        yield project, options
    finally:
        flow_services.down(project)


@pytest.fixture
def s3(stores, monkeypatch):
    """A client of the store, which the environment points to."""
    import boto3

    for name, value in flow_services.environment(stores[0]).items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    return boto3.Session().client("s3")  # the default session would remember other tests' keys


def of_server(project: Path) -> dict:
    """Prefect's settings for a client of a project's server, in this process."""
    own = flow_services.environment(project)
    return {PREFECT_API_URL: own["PREFECT_API_URL"], PREFECT_API_AUTH_STRING: own.get("PREFECT_API_AUTH_STRING")}


def last_words(project: Path, flow: str) -> str:
    """What Prefect says of the newest run of a flow."""
    api = flow_services.environment(project)["PREFECT_API_URL"]
    where = {"flows": {"name": {"any_": [flow]}}, "sort": "START_TIME_DESC", "limit": 1}
    return httpx.post(f"{api}/flow_runs/filter", json=where).json()[0]["state"]["message"]
