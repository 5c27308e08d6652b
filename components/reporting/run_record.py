"""run.json: when a report was made, how long that took, and at which Git revision. Never part of a cached result."""

import platform
import subprocess
import time
from pathlib import Path

from components.files import write_json
from components.paths import Paths


def write_run_record(paths: Paths, begun: float) -> None:
    """Write run.json beside the report; `begun` is in seconds since 1970. A driver of the whole graph replaces it."""
    about = {"begun": begun, "seconds": round(time.time() - begun, 1), "python": platform.python_version()}
    write_json(paths.report / "run.json", {**about, **revision(paths.root)})


def revision(checkout: Path) -> dict[str, str | bool | None]:
    """{"revision": the commit, "dirty": whether tracked files differ from it}; None each outside Git."""
    try:
        commit = _git(checkout, "rev-parse", "HEAD")
        return {"revision": commit, "dirty": bool(_git(checkout, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.CalledProcessError):
        return {"revision": None, "dirty": None}


def _git(checkout: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(checkout), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
