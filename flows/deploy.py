"""`prefect deploy --all`, left out when the server already has these deployments.

    python -m flows.deploy [--kubernetes]

makes a server that somebody else runs (PREFECT_API_URL) ready: work pools, the watch for crashes, the deployments.
"""

import argparse
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
    _deploy_all({**os.environ, **environment(project)})
    atomic_write(stamp, content.hexdigest())


def _deploy_all(env: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        cwd=ROOT,
        # Where a clone lies is for each worker to say, not for this machine.
        env={name: value for name, value in env.items() if name != "COTAM_CHECKOUT"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0:
        said = "\n".join(done.stdout.splitlines()[-15:])
        raise CotamError(f"`prefect deploy --all` failed (see also .cotam/run/prefect.log); it said:\n{said}")


def main() -> int:
    import asyncio

    from flows.workers import furnish

    parser = argparse.ArgumentParser(prog="python -m flows.deploy", description=__doc__.splitlines()[0])
    parser.add_argument("--kubernetes", action="store_true", help="each stage in a pod (infra/kubernetes/pool-*.json)")
    args = parser.parse_args()
    try:
        asyncio.run(furnish(args.kubernetes))
        _deploy_all(dict(os.environ))
    except CotamError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
