"""`cotam step`: run one step of the pipeline, as dvc.yaml does."""

import argparse
import os
import sys
from pathlib import Path

from components.paths import ROOT


def add_parser(sub: argparse._SubParsersAction) -> None:
    """Describe the command."""
    from components.steps import ABLATION_STEPS, STEPS

    names = [step.name for step in (*STEPS, *ABLATION_STEPS)]
    steps = "\n".join(f"  {step.name:<17}{step.summary}" for step in (*STEPS, *ABLATION_STEPS))
    parser = sub.add_parser(
        "step",
        help="run one step of the pipeline (what dvc.yaml calls)",
        description="Run one step of the pipeline. `dvc repro` calls this, in the right order and only where needed.",
        epilog=f"steps:\n{steps}\n\nexample:\n  cotam step joint --codec elic --mllm micro-llava\n"
        "  cotam step evaluate-variant --variant k-045",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="STEP", choices=names, help="one of the steps below")
    parser.add_argument("--codec", metavar="NAME", help="an entry of `codecs` in params.yaml")
    parser.add_argument("--mllm", metavar="NAME", help="an entry of `mllms` in params.yaml")
    parser.add_argument("--task", metavar="NAME", help="one of `evaluation.tasks` in params.yaml")
    parser.add_argument("--variant", metavar="NAME", help="an entry of `variants` in params.yaml")
    parser.add_argument("--seed", metavar="N", type=int, help="of the variant's training (default: the main one)")


def run(args: argparse.Namespace) -> int:
    """Run the step with the code of the checkout that we stand in, in as many processes as the machine gives it."""
    _enter_checkout(Path.cwd())
    from components import processes
    from components.locks import die_with_parent
    from components.steps import find, run_step

    die_with_parent()
    if find(args.name).trains and processes.wanted() > 1 and not processes.started():
        given = ((f"--{key}", getattr(args, key)) for key in ("codec", "mllm", "variant", "seed"))
        said = [word for option, value in given if value is not None for word in (option, str(value))]
        processes.launch(processes.wanted(), ["-m", "components.cli", "step", args.name, *said])
        return 0
    run_step(args.name, args.codec, args.mllm, task=args.task, variant=args.variant, seed=args.seed)
    return 0


def _enter_checkout(here: Path) -> None:
    """Start again with the code in `here`, if that is a checkout and not the one we were imported from.

    A run with overrides works in a copy of the checkout but shares its virtual environment, whose `cotam` belongs to
    the original: a step would otherwise run other code than the one DVC hashed.
    """
    if here == ROOT or not (here / "components/steps.py").is_file():
        return
    search = os.pathsep.join(path for path in (str(here), os.environ.get("PYTHONPATH")) if path)
    environment = os.environ | {"PYTHONPATH": search}
    os.execve(sys.executable, [sys.executable, "-m", "components.cli", *sys.argv[1:]], environment)
