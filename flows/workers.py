"""One process that serves several work pools.

    python -m flows.workers [--pools cluster-gpu] [--name gpu-1]

Without arguments it is the worker of `make up`, which serves the pools of one machine. Named pools make it one of
several workers of a cluster; PREFECT_API_URL says of which, and COTAM_CHECKOUT where this machine has its checkout.

Three `prefect worker start` commands would import Prefect three times and hold three times the memory. The parent flow
has a pool of its own (`local`), so that it never takes the place of the stages that it waits for (`cpu`, `gpu`).
"""

import argparse
import asyncio
import os
import socket
import sys
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.filters import FlowRunFilter, WorkPoolFilter, WorkPoolFilterName
from prefect.client.schemas.objects import StateType
from prefect.states import Crashed
from prefect.workers.process import ProcessWorker

from components.errors import CotamError
from components.files import read_json
from components.paths import ROOT
from flows.crash_watch import watch_for_crashes
from flows.services import HEARTBEAT_SECONDS

LOCAL: dict[str, int | None] = {"local": None, "cpu": 2, "gpu": 1}
"""Pool of one machine -> how many flow runs at once (None: no limit)."""

CLUSTER: dict[str, int | None] = {"cluster": None, "cluster-cpu": 1, "cluster-gpu": 1}
"""The same for pools that workers on several machines serve; the number is that of one worker."""

PODS = {f"cluster-{kind}": ROOT / "infra" / "kubernetes" / f"pool-{kind}.json" for kind in ("cpu", "gpu")}
"""Pool -> the job that Prefect's Kubernetes worker makes of a flow run."""

MAXIMUM_SKEW = 10.0
"""Seconds by which a machine's clock may differ: a worker asks for what is due within its next ten seconds."""

UNFINISHED = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]


async def wait_for_server(client: PrefectClient) -> None:
    """Return once the API answers; it starts at the same time as this process.

    Raises:
        CotamError: it asks for another password.
    """
    while True:
        try:
            if (await client.hello()).status_code == 200:
                return
        except httpx.HTTPStatusError as error:
            if error.response.status_code in (401, 403):
                raise CotamError(
                    f"Prefect at {client.api_url} refuses this machine's password; set PREFECT_API_AUTH_STRING, "
                    "or take it from a new worker.env."
                ) from None
        except httpx.HTTPError:
            pass
        await asyncio.sleep(0.3)


async def check_clock(client: PrefectClient) -> None:
    """Compare this machine's clock with the server's.

    A worker takes what is due by its own clock, and the times in a run's heartbeats tell it dead from alive: with a
    clock that is behind, stages would start late by as much.

    Raises:
        CotamError: they differ by more than `MAXIMUM_SKEW`.
    """
    seen = []
    for _ in range(3):  # a busy machine reads an answer late, which looks like a clock that is ahead
        reply = await client.hello()
        if "date" not in reply.headers:
            return
        seen.append(time.time() - parsedate_to_datetime(reply.headers["date"]).timestamp())
        if abs(seen[-1]) <= MAXIMUM_SKEW:
            return
    skew = min(seen, key=abs)
    raise CotamError(
        f"This machine's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} that of Prefect's server; "
        "set both by NTP (`timedatectl set-ntp true`), then start the worker again."
    )


async def crash_abandoned(client: PrefectClient) -> None:
    """Mark as crashed what an earlier worker of this machine was running when it died.

    No other worker serves the local pools, so nothing that is believed to be under way in them can be. Stages still
    scheduled by a dead parent are crashed too; a run that a person has scheduled stays.
    """
    here = WorkPoolFilter(name=WorkPoolFilterName(any_=list(LOCAL)))
    unfinished = FlowRunFilter.model_validate({"state": {"type": {"any_": UNFINISHED}}})
    orphaned = FlowRunFilter.model_validate(
        {"state": {"type": {"any_": [StateType.SCHEDULED]}}, "parent_task_run_id": {"is_null_": False}}
    )
    for where in (unfinished, orphaned):
        for run in await client.read_flow_runs(flow_run_filter=where, work_pool_filter=here):
            await client.set_flow_run_state(run.id, Crashed(message="Its worker ended."), force=True)


async def make_pools(client: PrefectClient, kubernetes: bool = False) -> None:
    """Create the pools that are missing.

    With `kubernetes`, a stage of a cluster's pools is a pod of its own, and pools that are there get the templates of
    this checkout. Elsewhere flow runs are one Python process each (`prefect.engine`); the default starts a second one
    to look for requirements to install, which takes two seconds per stage. Other machines may have their Python
    elsewhere: there it is the first one on the worker's PATH.

    Raises:
        CotamError: with `kubernetes`, a pool is there and of another type, which cannot be changed.
    """
    present = {pool.name: pool for pool in await client.read_work_pools()}
    if kubernetes:
        for name in PODS.keys() & present.keys():
            if present[name].type != "kubernetes":
                raise CotamError(
                    f"The pool {name} is of type {present[name].type}; `prefect work-pool delete {name}`, "
                    "then try again."
                )
            await client.update_work_pool(name, WorkPoolUpdate(base_job_template=read_json(PODS[name])))
    for name in (LOCAL.keys() | CLUSTER.keys()) - present.keys():
        template = ProcessWorker.get_default_base_job_template()
        python = sys.executable if name in LOCAL else "python"
        template["variables"]["properties"]["command"]["default"] = f"{python} -m prefect.engine"
        pool = WorkPoolCreate(name=name, type="process", base_job_template=template)
        if kubernetes and name in PODS:
            pool = WorkPoolCreate(name=name, type="kubernetes", base_job_template=read_json(PODS[name]))
        await client.create_work_pool(pool)


async def furnish(kubernetes: bool = False) -> None:
    """Wait for the server, and put into it the pools to deploy to and the watch for crashes."""
    async with get_client() as client:
        await wait_for_server(client)
        await make_pools(client, kubernetes)
        await watch_for_crashes(client)


async def serve(ready: Path) -> None:
    """Serve the local pools until killed; make the file `ready` once all pools can be deployed to."""
    await furnish()
    async with get_client() as client:
        await crash_abandoned(client)
    ready.touch()
    await _work(LOCAL, "{pool}-worker")


async def join(pools: Sequence[str], name: str) -> None:
    """Serve pools of a cluster until killed, beside other workers."""
    async with get_client() as client:
        await wait_for_server(client)
        await check_clock(client)
    await _work({pool: CLUSTER[pool] for pool in pools}, f"{name}-{{pool}}")


async def _work(pools: dict[str, int | None], name: str) -> None:
    workers = [ProcessWorker(pool, name=name.format(pool=pool), limit=limit) for pool, limit in pools.items()]
    await asyncio.gather(*(worker.start() for worker in workers))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.workers", description=__doc__.splitlines()[0])
    parser.add_argument("--ready", type=Path, help="the local pools; a file to make once they are there")
    parser.add_argument("--pools", nargs="+", choices=list(CLUSTER), help="the pools of a cluster to serve")
    parser.add_argument("--name", default=socket.gethostname(), help="of this worker (default: that of this machine)")
    args = parser.parse_args()
    if not args.ready and not args.pools:
        parser.error("give --pools")
    try:
        if args.ready:
            asyncio.run(serve(args.ready))
        else:
            os.environ.setdefault("COTAM_CHECKOUT", str(ROOT))
            os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", HEARTBEAT_SECONDS)
            asyncio.run(join(args.pools, args.name))
    except CotamError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
