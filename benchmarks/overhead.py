"""How much of a finished run was spent around its stages rather than in them.

    python benchmarks/overhead.py [--run ID] [--json]          while `make up` serves the run's records

Prints when each stage of the last finished train-and-eval (or of run ID) was at work, how much of that was side by
side, and the share of the run's time in which no stage was: the orchestration's. `make demo` prints the share of all
its time, the start of the services included.
"""

import argparse
import json
import sys
from pathlib import Path

import httpx

from components.errors import CotamError
from components.paths import ROOT
from components.tracking.client import TrackingClient
from flows import services
from flows.stage_times import StageTimes, newest, stage_times


def measure(uri: str, run_id: str | None = None) -> StageTimes:
    """The times of a run.

    Raises:
        CotamError: MLflow does not answer, or has no such run.
    """
    try:
        client = TrackingClient(uri)
        run = newest(client, run_id)
        if run is None:
            raise CotamError(f"MLflow at {uri} has no run that has finished: `make demo` makes one.")
        if run["info"]["status"] == "RUNNING":
            raise CotamError(f"The run {run_id} has not ended yet.")
        return stage_times(client, run)
    except httpx.HTTPStatusError as error:
        said = f"has no run {run_id}" if run_id else f"refuses ({error.response.status_code})"
        raise CotamError(f"MLflow at {uri} {said}.") from error
    except httpx.HTTPError as error:
        raise CotamError(f"MLflow at {uri} does not answer: run `make up` first.") from error


def as_json(times: StageTimes) -> dict:
    """The report, in seconds; `share` is of the whole."""
    return {
        "whole": round(times.whole, 1),
        "stages": {name: [round(at - times.begun, 1) for at in span] for name, span in times.stages.items()},
        "summed": round(times.summed, 1),
        "overlap": round(times.summed - times.busy, 1),
        "busy": round(times.busy, 1),
        "around": round(times.around, 1),
        "share": round(times.around / times.whole, 4) if times.whole else None,
    }


def main(argv: list[str] | None = None) -> int:
    """Read and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", metavar="ID", help="in MLflow; the last one that has finished by default")
    parser.add_argument("--project", type=Path, default=ROOT, help="the checkout that it ran in (default: this one)")
    parser.add_argument("--json", action="store_true", help="report as JSON")
    args = parser.parse_args(argv)
    try:
        found = as_json(measure(services.urls(args.project)["mlflow"], args.run))
    except CotamError as error:
        print(error, file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(found, indent=2))
        return 0
    for name, (begin, end) in found["stages"].items():
        print(f"{name:32} {begin:8.1f} to {end:8.1f}  {end - begin:8.1f} s")
    print(f"stages   {found['summed']:8.1f} s, {found['overlap']:.1f} s of them side by side")
    print(f"run      {found['whole']:8.1f} s, {found['busy']:.1f} s of it in stages")
    print(f"around   {found['around']:8.1f} s, {100 * found['share']:.1f} % of the run")
    return 0


if __name__ == "__main__":
    sys.exit(main())
