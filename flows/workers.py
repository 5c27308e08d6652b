"""One process that serves all local work pools.

Three `prefect worker start` commands would import Prefect three times and hold three times the memory. The parent flow
has a pool of its own (`local`), so that it never takes the place of the stages that it waits for (`cpu`, `gpu`).
"""

import argparse
import asyncio
import sys
from pathlib import Path

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import StateType
from prefect.states import Crashed
from prefect.workers.process import ProcessWorker

POOLS: dict[str, int | None] = {"local": None, "cpu": 2, "gpu": 1}
"""Pool -> how many flow runs at once (None: no limit)."""

UNFINISHED = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]


async def wait_for_server(client: PrefectClient) -> None:
    """Return once the API answers; it starts at the same time as this process."""
    while True:
        try:
            if (await client.hello()).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        await asyncio.sleep(0.3)


async def crash_abandoned(client: PrefectClient) -> None:
    """Mark as crashed what an earlier worker of this machine was running when it died.

    No other worker serves the embedded server, so nothing that it believes to be under way can be. Stages still
    scheduled by a dead parent are crashed too; a run that a person has scheduled stays.
    """
    unfinished = FlowRunFilter.model_validate({"state": {"type": {"any_": UNFINISHED}}})
    orphaned = FlowRunFilter.model_validate(
        {"state": {"type": {"any_": [StateType.SCHEDULED]}}, "parent_task_run_id": {"is_null_": False}}
    )
    for where in (unfinished, orphaned):
        for run in await client.read_flow_runs(flow_run_filter=where):
            await client.set_flow_run_state(run.id, Crashed(message="Its worker ended."), force=True)


async def make_pools(client: PrefectClient) -> None:
    """Create the pools that are missing.

    Their flow runs are one Python process each (`prefect.engine`); the default starts a second one to look for
    requirements to install, which takes two seconds per stage.
    """
    template = ProcessWorker.get_default_base_job_template()
    template["variables"]["properties"]["command"]["default"] = f"{sys.executable} -m prefect.engine"
    present = {pool.name for pool in await client.read_work_pools()}
    for name in POOLS.keys() - present:
        await client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))


async def serve(ready: Path) -> None:
    """Serve every pool until killed; make the file `ready` once they can be deployed to."""
    async with get_client() as client:
        await wait_for_server(client)
        await crash_abandoned(client)
        await make_pools(client)
    ready.touch()
    workers = [ProcessWorker(pool, name=f"{pool}-worker", limit=limit) for pool, limit in POOLS.items()]
    await asyncio.gather(*(worker.start() for worker in workers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ready", type=Path, required=True)
    asyncio.run(serve(parser.parse_args().ready))


if __name__ == "__main__":
    main()
