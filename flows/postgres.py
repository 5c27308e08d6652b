"""PostgreSQL behind Prefect and MLflow: Debian's, with its data in `.cotam/postgres`, on loopback only.

The password is made at the first start, lies in a file in PostgreSQL's own format (PGPASSFILE) that only its owner may
read, and is in no address, command line or log.
"""

import os
import secrets
import shutil
import signal
import subprocess
from pathlib import Path

from components.errors import CotamError
from components.files import atomic_dir, atomic_write

USER = "cotam"
_DEBIAN = Path("/usr/lib/postgresql")
DATABASES = ("prefect", "mlflow", "mlflow_users")


def binaries() -> Path:
    """The folder that has `initdb` and `postgres`, of the newest version that is installed.

    Raises:
        CotamError: there is none.
    """
    versions = sorted(_DEBIAN.glob("*/bin"), key=lambda path: float(path.parent.name))
    on_path = shutil.which("postgres")
    for folder in [*reversed(versions), *([Path(on_path).parent] if on_path else [])]:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise CotamError("PostgreSQL is not installed: run infra/services.sh, which installs Debian's.")


def as_user() -> list[str]:
    """What to put before a command of PostgreSQL, which refuses to run as root.

    In a user namespace of its own it sees another number, while its files stay those of whoever runs this.

    Raises:
        CotamError: this is root, and the kernel has no user namespaces.
    """
    if os.geteuid() != 0:
        return []
    wrapper = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
    if not shutil.which("unshare") or subprocess.run([*wrapper, "true"], capture_output=True).returncode:
        raise CotamError("PostgreSQL does not run as root, and user namespaces are off here: run this as another user.")
    return wrapper


def prepare(folder: Path) -> None:
    """Make the password and the empty database, once.

    Raises:
        CotamError: PostgreSQL is missing or refuses.
    """
    programs = binaries()
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    if not (folder / "password").exists():
        atomic_write(folder / "password", secrets.token_urlsafe(32))
        (folder / "password").chmod(0o600)
    if (folder / "data").exists():
        return
    with atomic_dir(folder / "data") as empty:
        options = ["--username", USER, "--pwfile", str(folder / "password"), "--auth", "scram-sha-256"]
        options += ["--encoding", "UTF8", "--no-locale", "-D", str(empty)]
        done = subprocess.run([*as_user(), str(programs / "initdb"), *options], capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["it does not say why"])[-1]
            raise CotamError(f"initdb could not make a database in {folder}: {said}")


def command(folder: Path, port: int) -> list[str]:
    """What serves the database."""
    settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": "200"}
    options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
    return [*as_user(), str(binaries() / "postgres"), "-D", str(folder / "data"), "-p", str(port), *options]


def environment(folder: Path, port: int) -> dict[str, str]:
    """Where libpq and asyncpg find the password."""
    passwords = folder / "passwords"
    line = f"127.0.0.1:{port}:*:{USER}:{(folder / 'password').read_text()}\n"
    if not passwords.exists() or passwords.read_text() != line:
        atomic_write(passwords, line)
        passwords.chmod(0o600)
    return {"PGPASSFILE": str(passwords)}


def url(scheme: str, port: int, database: str) -> str:
    """An address without a password."""
    return f"{scheme}://{USER}@127.0.0.1:{port}/{database}"


def ready(folder: Path, port: int) -> bool:
    """Whether the server answers; makes the databases that are missing."""
    import psycopg

    password = (folder / "password").read_text()
    place = {"host": "127.0.0.1", "port": port, "user": USER, "password": password, "connect_timeout": 5}
    try:
        connection = psycopg.connect(**place, dbname="postgres", autocommit=True)
    except psycopg.OperationalError:
        return False
    with connection:
        present = {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
        for name in DATABASES:
            if name not in present:
                connection.execute(f"CREATE DATABASE {name}")
    return True


def stop(pid: int, seconds: float = 20.0) -> None:
    """Ask the server to end its clients' work and shut down (what PostgreSQL calls fast)."""
    import psutil

    try:
        process = psutil.Process(pid)
        process.send_signal(signal.SIGINT)
        process.wait(seconds)
    except (psutil.NoSuchProcess, psutil.TimeoutExpired):
        return
