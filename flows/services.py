"""The services of the embedded setup: Prefect's server, MLflow's server and one worker, on loopback only.

    python -m flows.services up|down|status [--json]

`up` starts what is not running and heals what died, clearing away what a killed worker left, and puts the deployments
of prefect.yaml into the server; `down` ends everything that `up` started. All state lies in the project's `.cotam`
folder.
"""

import argparse
import json
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock

from components.errors import CotamError
from components.paths import ROOT
from flows import processes
from flows.processes import Identity, Service

NAMES = ("prefect", "mlflow", "worker")
PORTS = {"prefect": ("COTAM_PREFECT_PORT", 4200), "mlflow": ("COTAM_MLFLOW_PORT", 5000)}
HEALTH = {"prefect": "/api/health", "mlflow": "/health"}
START_SECONDS = 600.0  # a first start writes two databases: 15 s on idle cores, 300 s on heavily loaded ones


def run_folder(project: Path) -> Path:
    """Where the services' process files and logs lie."""
    return project / ".cotam" / "run"


def urls(project: Path) -> dict[str, str]:
    """Address of each server: where it runs, or where it would be started."""
    return {name: _running_url(project, name) or f"http://127.0.0.1:{_port(name)}" for name in PORTS}


def environment(project: Path) -> dict[str, str]:
    """What a process needs to speak with the services of `project`, and to keep quiet towards everyone else."""
    address = urls(project)
    local = "127.0.0.1,localhost"
    return {
        "PREFECT_API_URL": f"{address['prefect']}/api",
        "PREFECT_HOME": str(project / ".cotam" / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_CLI_PROMPT": "false",
        # Ten retries ride out a server that is busy for half a minute.
        "PREFECT_CLIENT_MAX_RETRIES": "10",
        "PREFECT_API_REQUEST_TIMEOUT": "120",
        "MLFLOW_TRACKING_URI": address["mlflow"],
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
        "DVC_NO_ANALYTICS": "1",
        "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY"), local])),
        "no_proxy": ",".join(filter(None, [os.environ.get("no_proxy"), local])),
    }


def up(project: Path = ROOT, owner: Identity | None = None) -> dict[str, Service]:
    """Start what is not running, and return all services, ready to be used.

    Args:
        project: the checkout whose `.cotam` folder holds the state.
        owner: the process that the services are started for; when it has ended without stopping them, the next
            `up` starts anew. None: they are kept until `down`. What is healed keeps the owner of the others.

    Raises:
        CotamError: a port is taken, or a service did not start.
    """
    project, folder = project.resolve(), run_folder(project.resolve())
    with _lock(folder):
        known = {name: processes.load(folder, name) for name in NAMES}
        if any(service and service.owner and not service.owner.alive() for service in known.values()):
            _stop_all(project)
            known = dict.fromkeys(NAMES)
        alive = {name for name, service in known.items() if service and service.process.alive()}
        if alive:
            owner = known[min(alive)].owner
        if "prefect" not in alive:
            alive.discard("worker")  # its runs are lost with the server that knew of them
        for name in reversed([name for name in NAMES if name not in alive]):
            processes.end(project, name)
            (folder / f"{name}.json").unlink(missing_ok=True)
        missing = [name for name in NAMES if name not in alive]
        ports = {name: _free_port(name) for name in missing if name in PORTS}  # all of them before anything is started
        for name in missing:
            _start(project, name, ports.get(name), owner)
        services = {name: processes.load(folder, name) for name in NAMES}
        for service in services.values():
            _wait_ready(project, service)
    return services


def down(project: Path = ROOT) -> bool:
    """End every service of `project` and all that they started; False when there was nothing to end."""
    project = project.resolve()
    with _lock(run_folder(project)):
        return _stop_all(project)


def status(project: Path = ROOT) -> dict[str, dict[str, str | int | None]]:
    """State (`running`, `dead`, `stopped`), process number, address and log of each service."""
    report = {}
    for name in NAMES:
        service = processes.load(run_folder(project.resolve()), name)
        if service is None:
            report[name] = {"state": "stopped", "pid": None, "url": None, "log": None}
        else:
            state = "running" if service.process.alive() else "dead"
            report[name] = {"state": state, "pid": service.process.pid, "url": service.url, "log": service.log}
    return report


def recorded(project: Path) -> list[Service]:
    """The services that were started and not stopped, alive or not."""
    found = [processes.load(run_folder(project.resolve()), name) for name in NAMES]
    return [service for service in found if service]


def tail(log: Path | str, lines: int = 15) -> str:
    """The last lines of a log file."""
    path = Path(log)
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""


def _lock(folder: Path) -> FileLock:
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / "services.lock")


def _stop_all(project: Path) -> bool:
    ended = sum([processes.end(project, name) for name in reversed(NAMES)])  # the worker needs its server to the last
    for name in NAMES:
        (run_folder(project) / f"{name}.json").unlink(missing_ok=True)
    return ended > 0


def _port(name: str, environ: Mapping[str, str] = os.environ) -> int:
    variable, default = PORTS[name]
    said = environ.get(variable, str(default))
    if not said.isdigit() or not 1 <= int(said) <= 65535:
        raise CotamError(f"{variable} is {said!r}: set it to a port number from 1 to 65535.")
    return int(said)


def _running_url(project: Path, name: str) -> str | None:
    service = processes.load(run_folder(project.resolve()), name)
    return service.url if service and service.process.alive() else None


def _free_port(name: str) -> int:
    port = _port(name)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            title, variable = {"prefect": "Prefect", "mlflow": "MLflow"}[name], PORTS[name][0]
            raise CotamError(
                f"Port {port}, which {title} is to use, is taken by another program: "
                f"stop that program, or set {variable} to a free port."
            ) from error
    return port


def _start(project: Path, name: str, port: int | None, owner: Identity | None) -> None:
    folder, state = run_folder(project), project / ".cotam"
    env = environment(project)
    python = [sys.executable, "-m"]
    if name == "prefect":
        (state / "prefect").mkdir(exist_ok=True)
        command = [*python, "flows.prefect_server", "--port", str(port)]
        env |= {
            "PREFECT_SERVER_DATABASE_TIMEOUT": "120",
            "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "120",
            "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",  # nothing runs by the clock
            "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
        }
    elif name == "mlflow":
        (state / "mlflow").mkdir(exist_ok=True)
        command = [*python, "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{state}/mlflow/mlflow.db"]
        command += ["--artifacts-destination", str(state / "mlflow" / "artifacts")]
        command += ["--allowed-hosts", f"127.0.0.1:{port},localhost:{port}"]
        env |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # evaluation jobs: two more processes, never used
        env.pop("MLFLOW_TRACKING_URI")
    else:
        (folder / "worker.ready").unlink(missing_ok=True)
        command = [*python, "flows.workers", "--ready", str(folder / "worker.ready")]
        # Each poll of three pools costs the server 0.1 s of a core: every two seconds, 5 % of one.
        env |= {"PREFECT_WORKER_QUERY_SECONDS": "2"}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    log = folder / f"{name}.log"
    url = f"http://127.0.0.1:{port}" if port else None
    Service(name, processes.start(name, command, project, log, env), owner, url, str(log)).save(folder)


def _ready(project: Path, service: Service) -> bool:
    if service.url is None:
        return (run_folder(project) / "worker.ready").exists()
    request = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with request.open(service.url + HEALTH[service.name], timeout=5) as reply:
            return reply.status == 200
    except (urllib.error.URLError, OSError):
        return False


def _wait_ready(project: Path, service: Service) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _ready(project, service):
        if not service.process.alive():
            raise CotamError(f"The service {service.name} ended as it started; its log {service.log} says:\n"
                             f"{tail(service.log)}")
        if time.monotonic() > deadline:
            raise CotamError(f"The service {service.name} did not answer within {START_SECONDS:.0f} s: "
                             f"see {service.log}, then run `make down` and try again.")
        time.sleep(0.25)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m flows.services", description=__doc__.splitlines()[0],
                                     epilog="example: python -m flows.services up")
    parser.add_argument("action", choices=["up", "down", "status"])
    parser.add_argument("--project", type=Path, default=ROOT, help="the checkout to serve (default: this one)")
    parser.add_argument("--json", action="store_true", help="print the state of the services as JSON")
    args = parser.parse_args(argv)
    try:
        if args.action == "up":
            up(args.project)
            from flows.deploy import deploy  # which needs `environment` from here

            deploy(args.project.resolve())
        elif args.action == "down":
            down(args.project)
    except CotamError as error:
        print(error, file=sys.stderr)
        return 1
    report = status(args.project)
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        for name, service in report.items():
            print(f"{name:8} {service['state']:8} {service['url'] or ''}".rstrip())
    return 0 if args.action != "status" or all(s["state"] == "running" for s in report.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
