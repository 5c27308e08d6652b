"""The services of the embedded setup: Prefect's server, MLflow's server and one worker, on loopback only.

    cotam services up|down|status|env [--postgres] [--s3] [--auth] [--host ADDRESS] [--json]

`up` starts what is not running and heals what died, clearing away what a killed worker left, and puts the deployments
of prefect.yaml into the server; `down` ends everything that `up` started. All state lies in the project's `.cotam`
folder. When asked, PostgreSQL keeps their records, an S3 store (OpenStack Swift) their artifacts, they ask for a
password, and other machines may reach them.
"""

import argparse
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from components.errors import CotamError
from components.files import atomic_file
from components.paths import ROOT
from flows import postgres, processes, s3_store, service_launch, service_options
from flows.processes import Identity, Service
from flows.service_launch import PORTS, TITLES, run_folder
from flows.service_options import USER, Options

NAMES = Options().names
ALL_NAMES = Options(postgres=True, s3=True).names
HEARTBEAT_SECONDS = "30"  # the shortest that Prefect allows: flows/crash_watch.py notices a dead machine by it
START_SECONDS = 600.0  # a first start writes two databases: 15 s on idle cores, 300 s on heavily loaded ones


def urls(project: Path) -> dict[str, str]:
    """Address of each web server: where it runs, or where it would be started."""
    at = service_options.load(run_folder(project.resolve())).host
    return {name: _running_url(project, name) or f"http://{at}:{_port(name)}" for name in ("prefect", "mlflow")}


def environment(project: Path) -> dict[str, str]:
    """What a process needs to speak with the services of `project`, and to keep quiet towards everyone else."""
    project = project.resolve()
    address, options = urls(project), service_options.load(run_folder(project))
    local = f"127.0.0.1,localhost,{options.host}"
    found = {
        "PREFECT_API_URL": f"{address['prefect']}/api",
        "PREFECT_HOME": str(project / ".cotam" / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_CLI_PROMPT": "false",
        # Ten retries ride out a server that is busy for half a minute.
        "PREFECT_CLIENT_MAX_RETRIES": "10",
        "PREFECT_API_REQUEST_TIMEOUT": "120",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": HEARTBEAT_SECONDS,
        "MLFLOW_TRACKING_URI": address["mlflow"],
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
        "DVC_NO_ANALYTICS": "1",
        "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY"), local])),
        "no_proxy": ",".join(filter(None, [os.environ.get("no_proxy"), local])),
    }
    return found | _secrets(project, options)


def up(
    project: Path = ROOT,
    owner: Identity | None = None,
    options: Options | None = None,
    meanwhile: Callable[[], object] = lambda: None,
) -> dict[str, Service]:
    """Start what is not running, and return all services, ready to be used.

    Args:
        project: the checkout whose `.cotam` folder holds the state.
        owner: the process that the services are started for; when it has ended without stopping them, the next
            `up` starts anew. None: they are kept until `down`. What is healed keeps the owner of the others.
        options: what they are to be; None: what they are, or the defaults when none is running.
        meanwhile: called when flows can be deployed, while MLflow, which takes longest, may still be starting.

    Raises:
        CotamError: a port is taken, a program is missing, a service did not start, or others are running.
    """
    project, folder = project.resolve(), run_folder(project.resolve())
    with _lock(folder):
        known = {name: processes.load(folder, name) for name in ALL_NAMES}
        if any(service and service.owner and not service.owner.alive() for service in known.values()):
            _stop_all(project)
            known = dict.fromkeys(ALL_NAMES)
        alive = {name for name, service in known.items() if service and service.process.alive()}
        if not alive:
            (folder / "options.json").unlink(missing_ok=True)
        before = service_options.load(folder)
        options = options or before
        if alive:
            owner = known[min(alive)].owner
            if options != before:
                raise CotamError("The services run with other options: stop them first with `cotam services down`.")
        if options.postgres and "postgres" not in alive:
            alive -= {"prefect", "mlflow"}  # what they were writing is lost with their database
        if "prefect" not in alive:
            alive.discard("worker")  # its runs are lost with the server that knew of them
        missing = [name for name in options.names if name not in alive]
        for name in reversed(missing):
            processes.end(project, name)
            (folder / f"{name}.json").unlink(missing_ok=True)
        ports = {name: service_launch.port_of(known[name].url) for name in alive if name in PORTS}
        # All ports and programs before anything is started.
        ports |= {name: _free_port(name, service_launch.host(name, options)) for name in missing if name in PORTS}
        for name in missing:
            service_launch.prepare(project, name)
        options.save(folder)
        services = {}
        for name in options.names:
            if name in missing:
                service = service_launch.start(project, name, ports, options, environment(project))
                replace(service, owner=owner).save(folder)
            services[name] = processes.load(folder, name)
            if name in ("postgres", "s3"):  # the next ones fail without them
                wait_ready(project, services[name])
        for name in (name for name in options.names if name != "mlflow"):
            wait_ready(project, services[name])
        meanwhile()
        wait_ready(project, services["mlflow"])
    return services


def down(project: Path = ROOT) -> bool:
    """End every service of `project` and all that they started; False when there was nothing to end."""
    project = project.resolve()
    with _lock(run_folder(project)):
        return _stop_all(project)


def status(project: Path = ROOT) -> dict[str, dict[str, str | int | None]]:
    """State (`running`, `dead`, `stopped`), process number, address and log of each service."""
    report, folder = {}, run_folder(project.resolve())
    for name in service_options.load(folder).names:
        service = processes.load(folder, name)
        if service is None:
            report[name] = {"state": "stopped", "pid": None, "url": None, "log": None}
        else:
            state = "running" if service.process.alive() else "dead"
            report[name] = {"state": state, "pid": service.process.pid, "url": service.url, "log": service.log}
    return report


def recorded(project: Path) -> list[Service]:
    """The services that were started and not stopped, alive or not."""
    found = [processes.load(run_folder(project.resolve()), name) for name in ALL_NAMES]
    return [service for service in found if service]


def write_environment(project: Path, path: Path) -> None:
    """Write what a worker on another machine needs to take part, as NAME=value lines, for the owner's eyes alone."""
    mine = ("PREFECT_HOME", "NO_PROXY", "no_proxy")
    theirs = environment(project) | {"PREFECT_WORKER_QUERY_SECONDS": "5"}  # 10 by default
    lines = [f"{name}={value}" for name, value in theirs.items() if name not in mine]
    with atomic_file(path) as temporary:
        temporary.touch(0o600)  # before there is anything in it
        temporary.write_text("\n".join(lines) + "\n")


def tail(log: Path | str, lines: int = 15) -> str:
    """The last lines of a log file."""
    path = Path(log)
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""


def _secrets(project: Path, options: Options) -> dict[str, str]:
    state, found = project / ".cotam", {}
    if options.auth:
        password = service_options.password(state)
        found |= {"PREFECT_API_AUTH_STRING": f"{USER}:{password}"}
        found |= {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": password}
    if options.s3 and (state / "s3" / "key").exists():
        url = _running_url(project, "s3") or f"http://{options.host}:{_port('s3')}"
        found |= s3_store.environment(state / "s3", url)
    return found


def _lock(folder: Path) -> FileLock:
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / "services.lock")


def _stop_all(project: Path) -> bool:
    folder, ended = run_folder(project), 0
    for name in reversed(ALL_NAMES):  # the worker needs its server to the last, and that its database
        service = processes.load(folder, name)
        if name == "postgres" and service and service.process.alive():
            postgres.stop(service.process.pid)
            ended += 1
        ended += processes.end(project, name)
    for name in ALL_NAMES:
        (folder / f"{name}.json").unlink(missing_ok=True)
    (folder / "options.json").unlink(missing_ok=True)
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


def _free_port(name: str, host: str) -> int:
    port = _port(name)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, 0))
        except OSError as error:
            raise CotamError(f"{host} is not an address of this machine; `ip address` lists those.") from error
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CotamError(
                f"Port {port}, which {TITLES[name]} is to use, is taken by another program: "
                f"stop that program, or set {PORTS[name][0]} to a free port."
            ) from error
    return port


def wait_ready(project: Path, service: Service) -> None:
    """Return when a service that was started answers.

    Raises:
        CotamError: it ended, or does not answer in time.
    """
    deadline = time.monotonic() + START_SECONDS
    while not service_launch.ready(project, service):
        if not service.process.alive():
            raise CotamError(f"The service {service.name} ended as it started; its log {service.log} says:\n"
                             f"{tail(service.log)}")
        if time.monotonic() > deadline:
            raise CotamError(f"The service {service.name} did not answer within {START_SECONDS:.0f} s: "
                             f"see {service.log}, then run `make down` and try again.")
        time.sleep(0.25)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line, that of `cotam services` and that of `python -m flows.services`."""
    parser.add_argument("action", choices=["up", "down", "status", "env"], help="env: what a worker elsewhere needs")
    parser.add_argument("file", type=Path, nargs="?", help="env: where to write it (default: .cotam/run/worker.env)")
    parser.add_argument("--project", type=Path, default=ROOT, help="the checkout to serve (default: this one)")
    parser.add_argument("--postgres", action="store_true", help="up: keep Prefect's and MLflow's records in PostgreSQL")
    parser.add_argument("--s3", action="store_true", help="up: start an S3 store, for artifacts, shards and DVC")
    parser.add_argument("--auth", action="store_true", help="up: Prefect and MLflow ask for a password")
    parser.add_argument("--host", metavar="ADDRESS", help="up: let other machines in at this address; implies --auth")
    parser.add_argument("--json", action="store_true", help="print the state of the services as JSON")


def run(args: argparse.Namespace) -> int:
    """Do what the command line asks, and return the exit code.

    Raises:
        CotamError: see `up`.
    """
    if args.action == "up":
        asked = args.postgres or args.s3 or args.auth or args.host is not None
        options = service_options.checked(args.postgres, args.s3, args.auth, args.host) if asked else None
        from flows.deploy import deploy  # which needs `environment` from here

        up(args.project, options=options, meanwhile=lambda: deploy(args.project.resolve()))
    elif args.action == "down":
        down(args.project)
    elif args.action == "env":
        path = args.file or run_folder(args.project.resolve()) / "worker.env"
        if not recorded(args.project):
            raise CotamError("No service is running: start them with `cotam services up`.")
        write_environment(args.project, path)
        print(path)
        return 0
    report = status(args.project)
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        for name, service in report.items():
            print(f"{name:8} {service['state']:8} {service['url'] or ''}".rstrip())
    return 0 if args.action != "status" or all(s["state"] == "running" for s in report.values()) else 1


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m flows.services", description=__doc__.splitlines()[0],
                                     epilog="example: python -m flows.services up")
    add_arguments(parser)
    try:
        return run(parser.parse_args(argv))
    except CotamError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
