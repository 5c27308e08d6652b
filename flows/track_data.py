"""Track a folder of shards with DVC, so that a revision of the project names the data it was trained on.

    python -m flows.track_data data/my-photos [--source s3://bucket/photos]

prints the .dvc files to commit. `dvc add` puts the shards into DVC's cache; `dvc push` then shares them. A source on S3
is imported without downloading it: what the bucket held is recorded, and `dvc update --no-download` compares.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from components.environment import be_quiet
from components.errors import CotamError


def track(folder: Path, source: str | None = None) -> list[Path]:
    """Have DVC track `folder` in the checkout that it lies in.

    Args:
        folder: what `cotam shard` wrote.
        source: the s3:// address that it was made of, to be recorded beside it.

    Returns:
        The .dvc files to commit.

    Raises:
        CotamError: `folder` is not in a DVC checkout, or DVC refused.
    """
    folder = folder.resolve()
    checkout = next((parent for parent in folder.parents if (parent / ".dvc").is_dir()), None)
    if checkout is None:
        raise CotamError(f"{folder} is not in a DVC checkout; run `dvc init` in the folder that is to hold it.")
    files = [folder.with_name(f"{folder.name}.dvc")]
    _dvc(checkout, "add", str(folder))
    if source is not None:
        origin = folder.with_name(f"{folder.name}.source")
        files.append(origin.with_name(f"{origin.name}.dvc"))
        _dvc(checkout, "import-url", "--no-download", "--force", source, str(origin))
    return files


def _dvc(checkout: Path, *arguments: str) -> None:
    be_quiet()
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = errors[-1].rstrip(".") if errors else f"exit code {done.returncode}"
        raise CotamError(f"`dvc {' '.join(arguments)}` failed: {reason}.")


def main() -> int:
    """Track what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m flows.track_data", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="what `cotam shard` wrote, in a DVC checkout")
    parser.add_argument("--source", metavar="s3://BUCKET/PREFIX", help="what it was made of, to be recorded beside it")
    args = parser.parse_args()
    try:
        for path in track(args.folder, args.source):
            print(os.path.relpath(path))
    except CotamError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
