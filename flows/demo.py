"""`make demo`: start the services, run train-and-eval/local, print what it found, and stop what was started.

    python -m flows.demo [--project FOLDER]

It does what `make up` and `prefect deployment run train-and-eval/local --watch` do, and shows every stage. Services
that were running before are used and left running.
"""

import argparse
import importlib
import os
import re
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import httpx
from rich.console import Console
from rich.text import Text

from components.errors import CotamError
from components.files import read_json
from components.paths import ROOT, Paths
from components.tracking.client import TrackingClient
from flows import services
from flows.deploy import deploy
from flows.processes import Identity
from flows.stage_times import StageTimes, of_flow_run, stage_times

DEPLOYMENT = "train-and-eval/local"
FAILED_LINES = 20


def demo(project: Path, console: Console) -> None:
    """The whole of it.

    Raises:
        CotamError: a port is taken, a service died, or a stage failed.
    """
    begun, me = time.monotonic(), Identity.of(os.getpid())
    running = {name: service["state"] for name, service in services.status(project).items()}
    kept = set(running.values()) == {"running"}
    console.print("Using the services that are running." if kept else "Starting Prefect, MLflow and a worker.")
    owner, times = None, None
    try:
        started = services.up(project, owner=me, meanwhile=lambda: make_ready(project))
        owner = started["worker"].owner
        if owner not in (None, me):
            raise CotamError(f"Another demo is running here (process {owner.pid}): wait for it, or stop it.")
        console.print(f"Prefect: {started['prefect'].url}   MLflow: {started['mlflow'].url}")
        flow_run_id = follow(project, console)
        times = times_of(flow_run_id, started["mlflow"].url)
    finally:
        if owner == me or any(one.owner == me for one in services.recorded(project)):
            services.down(project)
    show_results(project, console)
    seconds = time.monotonic() - begun
    said = f"Done in {seconds:.0f} s"
    if times and times.stages:
        around = seconds - times.busy
        said += f": {times.busy:.0f} s in stages, {around:.0f} s ({100 * around / seconds:.0f} %) around them"
    console.print(f"{said}. The runs stay in MLflow: `make up` serves them again.", highlight=False)


def make_ready(project: Path) -> None:
    """Deploy the flows, and load what following a run needs while that takes its time.

    Raises:
        CotamError: `prefect deploy` failed.
    """
    os.environ.update(services.environment(project))
    os.environ["PREFECT_CLIENT_MAX_RETRIES"] = "1"  # between two looks at the run we see ourselves what is alive
    with ThreadPoolExecutor(1) as pool:  # deploying in the main thread, so that a signal ends it
        loaded = pool.submit(importlib.import_module, "flows.watch")  # Prefect, which reads that environment
        deploy(project)
        loaded.result()


def times_of(flow_run_id: UUID, uri: str) -> StageTimes | None:
    """When the stages of a flow run that has ended were at work; None when MLflow does not say."""
    try:
        client = TrackingClient(uri)
        run = of_flow_run(client, str(flow_run_id))
        return None if run is None else stage_times(client, run)
    except httpx.HTTPError:  # a number that is missing fails no demo
        return None


def follow(project: Path, console: Console) -> UUID:
    """Run the deployment, show its stages until it has ended, and return the flow run's id.

    Raises:
        CotamError: it did not end well; says where and why.
    """
    # Not before the environment says where the server is.
    from prefect.client.orchestration import get_client

    from flows.watch import Follower, StageView

    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(DEPLOYMENT)
        parameters = {} if project == ROOT else {"project": str(project)}
        run_id = client.create_flow_run_from_deployment(deployment.id, parameters=parameters).id
        shown: dict[str, str] = {}
        stages: dict[str, StageView] = {}
        try:
            with console.status("waiting for the worker") as status:
                for update in Follower(client, run_id).updates(lambda: check_alive(project)):
                    stages = update.stages
                    show(console, update, shown)
                    status.update(Text(_now(stages), no_wrap=True, overflow="ellipsis"))
        except BaseException:
            cancel(client, run_id)
            raise
        if update.state.is_completed():
            return run_id
    for view in stages.values():
        if view.state == "failed":
            console.print(f"The last lines of {view.name}:", highlight=False)
            for line in view.lines[-FAILED_LINES:]:
                console.print(f"    {line}", highlight=False, markup=False, soft_wrap=True)
    log = services.run_folder(project) / "worker.log"
    if failed := ", ".join(view.name for view in stages.values() if view.state == "failed"):
        raise CotamError(f"Stage {failed} failed: its last lines are above, the whole log is {log}.")
    said = (update.state.message or "it does not say why").splitlines()[0]
    reason = re.sub(r"^.*encountered an exception:? \w+: ", "", said)  # Prefect's words before ours
    raise CotamError(f"train-and-eval is {update.state.name.lower()}: {reason} (The whole log is {log}.)")


def show(console: Console, update, shown: dict[str, str]) -> None:
    """Print which stages have changed since the last look (`shown`: name -> state), and what they said."""

    def changed(*states: str) -> None:
        for view in update.stages.values():
            if shown.get(view.name) != view.state and view.state in states:
                shown[view.name] = view.state
                console.print(f"  {view.name:32} {_state(view)}", **plain)

    plain = {"highlight": False, "markup": False, "soft_wrap": True}
    changed("running")
    for name, line in () if console.is_terminal else update.new_lines:
        console.print(f"    {name} | {line}", **plain)
    changed("done", "up to date", "restored", "failed", "skipped")


def check_alive(project: Path) -> None:
    """Raise CotamError when a service has died, for then the run never ends."""
    for name, service in services.status(project).items():
        if service["state"] != "running":
            raise CotamError(
                f"The service {name} has ended (see {project / '.cotam' / 'run' / name}.log): "
                f"run the same command again, it goes on where it was."
            )


def cancel(client, run_id: UUID) -> None:
    """Ask Prefect to end the run; it goes with the services otherwise."""
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.states import Cancelling

    try:
        children = FlowRunFilter.model_validate({"parent_flow_run_id": {"any_": [run_id]}})
        for child in [run_id, *(run.id for run in client.read_flow_runs(flow_run_filter=children))]:
            client.set_flow_run_state(child, Cancelling())
    except httpx.HTTPError:
        return


def show_results(project: Path, console: Console) -> None:
    """Print the tables of scores, rates and BD-rates, and where the report is."""
    report = Paths(project).report
    if not (report / "summary.json").exists():
        return
    from components.reporting.table import print_tables

    print_tables(read_json(report / "summary.json"), console)
    console.print(f"Report: {report / 'index.html'}", highlight=False, soft_wrap=True)


def _state(view) -> str:
    return view.state if view.state in ("running", "up to date") else f"{view.state} after {view.seconds:.0f} s"


def _now(stages) -> str:
    at_work = [f"{v.name}: {v.lines[-1] if v.lines else 'starting'}" for v in stages.values() if v.state == "running"]
    return "   ".join(at_work) or "between stages"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m flows.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--project", type=Path, default=ROOT, help="the checkout to run (default: this one)")
    project = parser.parse_args(argv).project.resolve()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        demo(project, Console())
    except CotamError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; what was started is stopped.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
