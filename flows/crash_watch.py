"""A dead machine's runs are called crashed, so that their stages can go elsewhere.

A run whose process ends is reported by its worker. When the machine goes, nobody reports, and a self-hosted server
would leave the run "Running" for ever. Each flow run therefore sends a heartbeat every 30 seconds
(PREFECT_FLOWS_HEARTBEAT_FREQUENCY), and this automation sets a run of a cluster (tag `cluster`) to Crashed after 90
seconds without one. The driver (`flows/elsewhere.py`) then asks for the stage again. On one machine a dead worker is
noticed otherwise (`flows/workers.py`), and a computer that was asleep is not to be taken for a dead one.
"""

from datetime import timedelta

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

NAME = "crash-silent-runs"
TAG = "cluster"  # of the deployments in prefect.yaml
SILENCE = timedelta(seconds=90)
MESSAGE = "Its machine has been silent for 90 seconds."
_HEARTBEAT = "prefect.flow-run.heartbeat"
_ENDS = ("Completed", "Failed", "Cancelled", "Crashed")


def automation() -> AutomationCore:
    """The rule, as Prefect's server evaluates it."""
    return AutomationCore(
        name=NAME,
        description="A flow run without heartbeats is crashed.",
        trigger=EventTrigger(
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related={"prefect.resource.id": f"prefect.tag.{TAG}", "prefect.resource.role": "tag"},
            for_each={"prefect.resource.id"},
            after={_HEARTBEAT},
            expect={_HEARTBEAT, *(f"prefect.flow-run.{state}" for state in _ENDS)},
            posture=Posture.Proactive,
            threshold=1,
            within=SILENCE,
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=MESSAGE)],
    )


async def watch_for_crashes(client: PrefectClient) -> None:
    """Put the rule into the server, unless it is there."""
    if not await client.read_automations_by_name(NAME):
        await client.create_automation(automation())
