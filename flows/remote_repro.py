"""`dvc repro --pull STAGE...` on a machine that shares only the DVC remote, with a guard.

`--single-item` does nothing there: the upstream stages have never been restored, and without them DVC has no input to
compare. A full `repro` restores them from the run-cache, but would also train a missing one on a machine that was asked
for something else; so the commands of other pools' stages are refused.
"""

import argparse
import sys
from collections.abc import Callable, Sequence, Set
from pathlib import Path

import dvc.stage.run
from dvc.cli import main as dvc_main
from dvc.repo import Repo

from components.errors import CotamError
from flows.dvc_graph import MAIN, path_of, pipeline_of, read_graph, target


def guarded(allowed: Set[str]) -> Callable[..., None]:
    """DVC's function that runs a stage's command, refusing the stages that are not in `allowed` (`Stage.name`)."""
    run_command = dvc.stage.run.cmd_run

    def cmd_run(stage, dry: bool = False, run_env: dict[str, str] | None = None) -> None:
        if target(stage) not in allowed:
            raise CotamError(
                f"stage {target(stage)} has no results in the DVC remote and is not for this pool: "
                f"run it where it belongs, then `dvc push --run-cache` there."
            )
        run_command(stage, dry=dry, run_env=run_env)

    return cmd_run


def restore_and_run(project: Path, stages: Sequence[str], pool: str | None) -> int:
    """Bring `stages` up to date in `project`, running only stages of `pool` (None: no stage at all).

    Args:
        stages: as `Stage.name` says, of any pipelines of the project; none: all of the main one.

    Returns:
        DVC's exit code: not 0 when an upstream stage of another pool has no results, or a declared result is missing.
    """
    pipelines = {MAIN, *map(pipeline_of, stages)}
    allowed = {other.name for other in read_graph(project, pipelines) if other.pool == pool}
    with Repo(str(project)) as repo:
        repo.stage_cache.pull(None)
    dvc.stage.run.cmd_run = guarded(allowed)
    code = dvc_main(["--wait-for-lock", "--cd", str(project), "repro", "--pull", *stages])
    if code:
        return code
    with Repo(str(project)) as repo:
        for stage in stages:
            outs = [out for found in repo.stage.collect(path_of(project, stage)) for out in found.outs]
            if missing := [out.def_path for out in outs if not out.exists]:
                print(f"Stage {stage} ended well but did not leave {', '.join(missing)}.", file=sys.stderr)
                return 1
    if not stages or pool is None:  # nothing can have been run
        return 0
    # With what they depend on: stages of this pool that they needed have been run as well.
    return dvc_main(["--cd", str(project), "push", "--run-cache", "--with-deps", *stages])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m flows.remote_repro", description=__doc__.splitlines()[0])
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="NAME or FILE:NAME; none: all of the main pipeline")
    parser.add_argument("--pool", help="stages of this pool may be run; without it none is, and all are restored")
    args = parser.parse_args()
    return restore_and_run(Path.cwd(), args.stages, args.pool)


if __name__ == "__main__":
    sys.exit(main())
