"""`cotam register`: put the codecs and adapters of the last run into the MLflow registry."""

import argparse
import json
import os
from dataclasses import asdict

from components.files import read_json
from components.paths import ROOT, Paths


def add_parser(sub: argparse._SubParsersAction) -> None:
    """Describe the command."""
    parser = sub.add_parser(
        "register",
        help="put trained codecs and adapters into the MLflow registry",
        description="Register the codecs and adapters of the last run (results/report/summary.json) as versions in "
        "MLflow. What is there already is left alone; `champion` moves only to a BD-rate that is better beyond chance.",
        epilog="example:\n  make up && cotam register",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print what was registered as JSON")


def run(args: argparse.Namespace) -> int:
    """Register, and say what became of each model."""
    from components.tracking.models import DEFAULT_SERVER
    from components.tracking.registry import candidates, register

    uri = os.environ.get("MLFLOW_TRACKING_URI", DEFAULT_SERVER)
    about = Paths(ROOT).report / "run.json"  # whoever drove the run has put it there
    revision = read_json(about).get("revision", "") if about.exists() else ""
    done = [register(found, uri) for found in candidates(ROOT, revision)]
    if args.json:
        print(json.dumps([asdict(one) for one in done], indent=2))
    else:
        for one in done:
            what = "registered" if one.new else "was there already"
            title = "champion" if one.champion else "not champion"
            print(f"{one.name} version {one.version} {what}; {title}: {one.reason}")
    return 0
