"""What `cotam services up` was asked for, and the password that goes with it."""

import secrets
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from pathlib import Path

from components.errors import CotamError
from components.files import atomic_write, read_json, write_json

USER = "cotam"
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Options:
    """Which services, and who may reach them.

    Attributes:
        postgres: Prefect and MLflow keep their records in PostgreSQL rather than in SQLite.
        s3: an S3 store runs too, which holds MLflow's artifacts and can hold shards and the DVC remote.
        auth: Prefect and MLflow ask for a user and a password.
        host: the address that Prefect, MLflow and S3 listen on. PostgreSQL stays on loopback.
    """

    postgres: bool = False
    s3: bool = False
    auth: bool = False
    host: str = LOOPBACK

    @property
    def names(self) -> tuple[str, ...]:
        """The services, in the order in which they are started."""
        extra = [name for name in ("postgres", "s3") if getattr(self, name)]
        return (*extra, "prefect", "mlflow", "worker")

    def save(self, folder: Path) -> None:
        """Keep them beside the services' process files."""
        write_json(folder / "options.json", asdict(self))


def load(folder: Path) -> Options:
    """What the services of this folder were started with; the defaults when they were not."""
    path = folder / "options.json"
    return Options(**read_json(path)) if path.exists() else Options()


def checked(postgres: bool = False, s3: bool = False, auth: bool = False, host: str | None = None) -> Options:
    """Options as a person gave them. Whoever listens to other machines asks them for a password.

    Raises:
        CotamError: `host` is no address, stands for all of them, or is of IPv6.
    """
    if host is None:
        return Options(postgres, s3, auth)
    try:
        address = ip_address(host)
    except ValueError:
        raise CotamError(f"{host} is not an IP address; give the one that other machines reach this one by.") from None
    if address.is_unspecified:
        raise CotamError(f"{host} stands for every address; give the one that other machines reach this one by.")
    if address.version != 4:
        raise CotamError(f"{host} is an IPv6 address; the services listen on IPv4 only, so give such an address.")
    return Options(postgres, s3, auth or not address.is_loopback, host)


def password(state: Path) -> str:
    """The password of the user `cotam` of Prefect and MLflow, made when it is first needed.

    Args:
        state: the project's `.cotam`. The file is for its owner alone.
    """
    path = state / "secrets" / "password"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o700)
        atomic_write(path, secrets.token_urlsafe(24))
        path.chmod(0o600)
    return path.read_text()


def write_mlflow_users(state: Path, database: str) -> Path:
    """Write the settings of MLflow's `basic-auth` and return their path.

    Args:
        state: the project's `.cotam`.
        database: where MLflow keeps users and permissions, as an SQLAlchemy address.
    """
    path = state / "secrets" / "mlflow.ini"
    lines = ["[mlflow]", "default_permission = NO_PERMISSIONS", f"database_uri = {database}"]
    lines += [f"admin_username = {USER}", f"admin_password = {password(state)}"]
    lines += ["authorization_function = mlflow.server.auth:authenticate_request_basic_auth"]
    atomic_write(path, "\n".join(lines) + "\n")
    path.chmod(0o600)
    return path
