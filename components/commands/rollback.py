"""`cotam rollback`: give the title of champion back to the version before."""

import argparse
import json
import os


def add_parser(sub: argparse._SubParsersAction) -> None:
    """Describe the command."""
    parser = sub.add_parser(
        "rollback",
        help="give the alias champion back to the version that had it before",
        description="Move the alias `champion` back to the version that had it before, or to any other. The version "
        "that loses it is not promoted again, however good its BD-rate.",
        epilog="example:\n  cotam rollback cotam-adapter-elic-micro-llava --why 'blind to digits'",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="of the registered model")
    parser.add_argument("--to", metavar="VERSION", help="to this version instead")
    parser.add_argument("--why", default="by hand", help="kept with the version that loses the title")
    parser.add_argument("--json", action="store_true", help="print what happened as JSON")


def run(args: argparse.Namespace) -> int:
    """Move the alias, and say from where to where."""
    from components.tracking.models import DEFAULT_SERVER
    from components.tracking.promotion import roll_back

    server = os.environ.get("MLFLOW_TRACKING_URI", DEFAULT_SERVER)
    before, now = roll_back(server, args.name.removeprefix("models:/").partition("@")[0], args.why, args.to)
    if args.json:
        print(json.dumps({"name": args.name, "before": before, "champion": now}, indent=2))
    else:
        print(f"{args.name}: champion was version {before}, is version {now}")
    return 0
