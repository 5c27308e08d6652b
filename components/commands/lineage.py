"""`cotam lineage`: what a registered model was made of."""

import argparse
import json
import os
from datetime import UTC, datetime


def add_parser(sub: argparse._SubParsersAction) -> None:
    """Describe the command."""
    parser = sub.add_parser(
        "lineage",
        help="say which run, revision and data a registered model was made from",
        description="Follow a registered version back to its run, its revision, its settings and the hashes of the "
        "data, shards included. `git checkout REVISION && dvc repro --pull` brings those back, or makes them again.",
        epilog="example:\n  cotam lineage models:/cotam-adapter-elic-micro-llava@champion",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="models:/NAME@champion or models:/NAME/VERSION")
    parser.add_argument("--json", action="store_true", help="print it as JSON, with every setting")


def run(args: argparse.Namespace) -> int:
    """Follow it back, and print what is found."""
    from components.tracking.lineage import trace
    from components.tracking.models import DEFAULT_SERVER

    found = trace(args.model, os.environ.get("MLFLOW_TRACKING_URI", DEFAULT_SERVER))
    if args.json:
        print(json.dumps(found, indent=2))
        return 0
    named = f" ({', '.join(found['aliases'])})" if found["aliases"] else ""
    rows = [("model", f"{found['model']} version {found['version']}{named}"), ("files", found["content_hash"])]
    if found["bd_rate"] is not None:
        rows.append(("BD-rate", f"{found['bd_rate']:.1f} %"))
    rows += [("promotion", found["promotion"]), ("codec", found["codec_hash"])]
    edited = ", with edits that are among the run's artifacts" if found["dirty"] else ""
    rows.append(("revision", f"{found['revision']}{edited}" if found["revision"] else None))
    if run := found["run"]:
        begun = datetime.fromtimestamp(run["begun"] / 1000, UTC)
        rows.append(("run", f"{run['id']} ({run['name']}, {run['status'].lower()}, {begun:%Y-%m-%d %H:%M} UTC)"))
        rows.append(("flow run", run["flow_run"]))
    rows.append(("source", found["settings"].get("data.source")))
    rows += [(path, md5) for path, md5 in sorted(found["data"].items())]
    for name, value in rows:
        if value:
            print(f"{name:16} {value}")
    return 0
