"""How each service is started: its command, its environment and how it is asked whether it is ready."""

import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

from components.paths import ROOT
from flows import postgres, processes, s3_store, service_options
from flows.processes import Service
from flows.service_options import USER, Options

TITLES = {"postgres": "PostgreSQL", "s3": "the S3 server", "prefect": "Prefect", "mlflow": "MLflow"}
PORTS = {
    "postgres": ("COTAM_POSTGRES_PORT", 5433),
    "s3": ("COTAM_S3_PORT", 9000),
    "prefect": ("COTAM_PREFECT_PORT", 4200),
    "mlflow": ("COTAM_MLFLOW_PORT", 5000),
}
HEALTH = {"s3": "/healthcheck", "prefect": "/api/health", "mlflow": "/health"}


def run_folder(project: Path) -> Path:
    """Where the services' process files and logs lie."""
    return project / ".cotam" / "run"


def host(name: str, options: Options) -> str:
    """The address that a service listens on: nobody but Prefect and MLflow speaks to the database."""
    return service_options.LOOPBACK if name == "postgres" else options.host


def prepare(project: Path, name: str) -> None:
    """Make what a service needs before its first start.

    Raises:
        CotamError: what it is made of is not installed.
    """
    if name == "postgres":
        postgres.prepare(project / ".cotam" / "postgres")
    elif name == "s3":
        s3_store.prepare(project / ".cotam" / "s3")
    else:
        (project / ".cotam" / name).mkdir(parents=True, exist_ok=True)


def start(project: Path, name: str, ports: dict[str, int], options: Options, env: dict[str, str]) -> Service:
    """Start one service (see `flows/processes.py`).

    Args:
        project: the checkout whose `.cotam` holds its state.
        name: one of `options.names`.
        ports: of every service that has one.
        options: what the services are to be.
        env: what every process of this project needs (`services.environment`).
    """
    state, folder, python = project / ".cotam", run_folder(project), [sys.executable, "-m"]
    address, port, env = host(name, options), ports.get(name), dict(env)
    if options.postgres:
        env |= postgres.environment(state / "postgres", ports["postgres"])
    if name == "postgres":
        command = postgres.command(state / "postgres", port)
    elif name == "s3":
        command = s3_store.command(state / "s3", address, port)
    elif name == "prefect":
        command = [*python, "flows.prefect_server", "--host", address, "--port", str(port)]
        env |= _prefect_settings(state, ports, options)
    elif name == "mlflow":
        command = [*python, "mlflow", "server", "--host", address, "--port", str(port), "--workers", "1"]
        command += _mlflow_places(state, ports, options)
        command += ["--allowed-hosts", f"{address}:{port},127.0.0.1:{port},localhost:{port}"]
        env |= _mlflow_settings(state, ports, options)
        env.pop("MLFLOW_TRACKING_URI")
    else:
        (folder / "worker.ready").unlink(missing_ok=True)
        command = [*python, "flows.workers", "--ready", str(folder / "worker.ready")]
        # Each poll of three pools costs the server 0.1 s of a core: every two seconds, 5 % of one.
        env |= {"PREFECT_WORKER_QUERY_SECONDS": "2"}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    log = folder / f"{name}.log"
    process = processes.start(name, command, project, log, env)
    return Service(name, process, None, _url(name, address, port), str(log))


def ready(project: Path, service: Service) -> bool:
    """Whether a started service answers; completes what it can only do once it does (databases, the bucket)."""
    state = project / ".cotam"
    if service.name == "worker":
        return (run_folder(project) / "worker.ready").exists()
    if service.name == "postgres":
        return postgres.ready(state / "postgres", port_of(service.url))
    request = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with request.open(service.url + HEALTH[service.name], timeout=5) as reply:
            answers = reply.status == 200
    except (urllib.error.URLError, OSError):
        return False
    if answers and service.name == "s3":
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            s3_store.make_bucket(s3_store.environment(state / "s3", service.url))
        except (BotoCoreError, ClientError):  # its parts start one after the other
            return False
    return answers


def port_of(url: str) -> int:
    """The port at the end of a service's address."""
    return int(url.rpartition(":")[2])


def _url(name: str, address: str, port: int | None) -> str | None:
    if port is None:
        return None
    return f"postgresql://{USER}@{address}:{port}" if name == "postgres" else f"http://{address}:{port}"


def _prefect_settings(state: Path, ports: dict[str, int], options: Options) -> dict[str, str]:
    settings = {
        "PREFECT_SERVER_DATABASE_TIMEOUT": "120",
        "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "120",
        "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",  # nothing runs by the clock
        "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
    }
    if options.postgres:
        address = postgres.url("postgresql+asyncpg", ports["postgres"], "prefect")
        settings["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = address
    if options.auth:
        settings["PREFECT_SERVER_API_AUTH_STRING"] = f"{USER}:{service_options.password(state)}"
    return settings


def _mlflow_places(state: Path, ports: dict[str, int], options: Options) -> list[str]:
    """Where MLflow keeps its records and its artifacts, and who may ask."""
    records = f"sqlite:///{state}/mlflow/mlflow.db"
    if options.postgres:
        records = postgres.url("postgresql", ports["postgres"], "mlflow")
    artifacts = f"s3://{s3_store.BUCKET}/mlflow" if options.s3 else str(state / "mlflow" / "artifacts")
    auth = ["--app-name", "basic-auth"] if options.auth else []
    return ["--backend-store-uri", records, "--artifacts-destination", artifacts, *auth]


def _mlflow_settings(state: Path, ports: dict[str, int], options: Options) -> dict[str, str]:
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # evaluation jobs: two more processes, never used
    if options.auth:
        users = f"sqlite:///{state}/mlflow/users.db"
        if options.postgres:
            users = postgres.url("postgresql", ports["postgres"], "mlflow_users")
        settings["MLFLOW_AUTH_CONFIG_PATH"] = str(service_options.write_mlflow_users(state, users))
        settings["MLFLOW_FLASK_SERVER_SECRET_KEY"] = service_options.password(state)
    return settings
