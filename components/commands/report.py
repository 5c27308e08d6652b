"""`cotam report`: the table of a run, and where its page is."""

import argparse
import json
from pathlib import Path

from components.paths import ROOT, Paths


def add_parser(sub: argparse._SubParsersAction) -> None:
    """Describe the command."""
    parser = sub.add_parser(
        "report",
        help="print the table of a run and say where its page is",
        description="Print scores, rates and BD-rates of a run from its summary.json, and say where its page is.",
        epilog="example:\n  cotam report\n  cotam report results/wide-grid/report --json\n  cotam report --readme",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Paths().report, help="a report folder (results/report)")
    parser.add_argument("--json", action="store_true", help="print summary.json")
    parser.add_argument("--readme", action="store_true", help="also write the table into README.md")


def run(args: argparse.Namespace) -> int:
    """Print the table, or the JSON, of a report that is there."""
    from components.errors import CotamError
    from components.files import read_json
    from components.reporting import table

    path = args.folder / "summary.json"
    if not path.is_file():
        raise CotamError(f"There is no {path}; run `make demo` or `dvc repro` first, or name another report folder.")
    summary = read_json(path)
    if args.readme:
        table.fill_readme(ROOT / "README.md", summary)
    if args.json:
        print(json.dumps(summary, indent=2, sort_keys=True))
        return 0
    table.print_tables(summary)
    print(f"\nThe page: {args.folder / 'index.html'}")
    return 0
