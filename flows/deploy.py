"""`prefect deploy --all`, left out when the server already has these deployments."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from components.errors import CotamError
from components.files import atomic_write
from components.paths import ROOT
from flows import service_options
from flows.service_launch import run_folder
from flows.services import environment


def deploy(project: Path) -> None:
    """Put prefect.yaml of this checkout into the server of `project`.

    Raises:
        CotamError: `prefect deploy` failed.
    """
    content = hashlib.sha256(str(ROOT).encode())
    for path in [ROOT / "prefect.yaml", *sorted((ROOT / "flows").glob("*.py"))]:
        content.update(path.read_bytes())
    database = "postgres" if service_options.load(run_folder(project)).postgres else "prefect"  # which holds them
    stamp = project / ".cotam" / database / "deployed"
    if stamp.exists() and stamp.read_text() == content.hexdigest():
        return
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        cwd=ROOT,
        env={**os.environ, **environment(project)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0:
        said = "\n".join(done.stdout.splitlines()[-15:])
        raise CotamError(f"`prefect deploy --all` failed (see also .cotam/run/prefect.log); it said:\n{said}")
    atomic_write(stamp, content.hexdigest())
