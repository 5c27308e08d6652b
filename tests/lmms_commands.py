"""Many runs of the command `lmms-eval` that end early, each in a process of its own, without a start for every one.

    python -m tests.lmms_commands FOLDER < RUNS

RUNS is a JSON list of [working directory, argument, ...]. What is imported and the index of lmms-eval's tasks are
shared by forking; all else is what the installed command does. The exit code and standard error of run N are left in
FOLDER/N.json.
"""

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.official_benchmarks import lmms_eval_environment


def run_all(root: Path, runs: Sequence[Sequence[str]]) -> list[tuple[int, str]]:
    """(exit code, standard error) of `lmms-eval ARGUMENT...` in a working directory, for each of the runs."""
    subprocess.run(
        [sys.executable, "-m", "tests.lmms_commands", str(root)],
        input=json.dumps(runs),
        env=lmms_eval_environment(root) | {"HF_HUB_OFFLINE": "1"},  # a file that is not there stays away
        check=True,
        text=True,
    )
    return [tuple(json.loads((root / f"{n}.json").read_text())) for n in range(len(runs))]


def main() -> None:
    from lmms_eval.__main__ import cli_evaluate  # noqa: F401  what all runs need
    from lmms_eval.cli.dispatch import main as command
    from lmms_eval.tasks import TaskManager

    import components.evaluation.lmms_model  # noqa: F401

    root = Path(sys.argv[1]).resolve()
    index = TaskManager().task_index  # seconds, each time
    TaskManager.initialize_tasks = lambda *_, **__: index
    for number, (folder, *arguments) in enumerate(json.load(sys.stdin)):
        said = root / f"{number}.stderr"
        if not (child := os.fork()):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
            os.chdir(folder)
            sys.argv = ["lmms-eval", *arguments]
            os._exit(_code(command))
        _, status = os.waitpid(child, 0)
        (root / f"{number}.json").write_text(json.dumps([os.waitstatus_to_exitcode(status), said.read_text()]))


def _code(command: Callable[[], None]) -> int:
    """What the interpreter exits with after a console script, which does sys.exit(main())."""
    try:
        sys.exit(command())
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr, flush=True)
            return 1
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1


if __name__ == "__main__":
    main()
