"""A dead machine's runs are called crashed, so that their stages can go elsewhere.

A run whose process ends is reported by its worker. When the machine goes, nobody reports, and a self-hosted server
would leave the run "Running", or "Pending" if it had not begun, for ever. Each flow run therefore sends a heartbeat
every 30 seconds (PREFECT_FLOWS_HEARTBEAT_FREQUENCY), and two automations set runs of a cluster (tag `cluster`) to
Crashed: 90 seconds after the last heartbeat, and where a worker has taken a run and no heartbeat ever came. The driver
(`flows/elsewhere.py`) then asks for the stage again. On one machine a dead worker is noticed otherwise
(`flows/workers.py`), and a computer that was asleep is not to be taken for a dead one.
"""

from datetime import timedelta

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

TAG = "cluster"  # of the deployments in prefect.yaml
SILENCE = timedelta(seconds=90)
UNSTARTED = timedelta(minutes=35)  # a pod may wait for its node and image longer than a process for its imports
_HEARTBEAT = "prefect.flow-run.heartbeat"
_TAKEN = "prefect.flow-run.Pending"
_ENDS = tuple(f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed"))


def automations() -> list[AutomationCore]:
    """The rules, as Prefect's server evaluates them."""
    return [
        _rule("crash-silent-runs", "Its machine has been silent", _HEARTBEAT, SILENCE),
        _rule("crash-unstarted-runs", "A worker took it, and it has not begun", _TAKEN, UNSTARTED),
    ]


def _rule(name: str, what: str, after: str, within: timedelta) -> AutomationCore:
    """A run is crashed if, so long `after` an event, neither a heartbeat nor its end has come."""
    message = f"{what} for {within.total_seconds():.0f} seconds."
    return AutomationCore(
        name=name,
        description=f"A run of the cluster is crashed: {message}",
        trigger=EventTrigger(
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related={"prefect.resource.id": f"prefect.tag.{TAG}", "prefect.resource.role": "tag"},
            for_each={"prefect.resource.id"},
            after={after},
            expect={_HEARTBEAT, *_ENDS},
            posture=Posture.Proactive,
            threshold=1,
            within=within,
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=message)],
    )


async def watch_for_crashes(client: PrefectClient) -> None:
    """Put the rules into the server, or bring those that are there up to date."""
    for rule in automations():
        there = await client.read_automations_by_name(rule.name)
        if not there:
            await client.create_automation(rule)
        elif _said(there[0]) != _said(rule):
            await client.update_automation(there[0].id, rule)


def _said(rule: AutomationCore) -> tuple:
    trigger = rule.trigger
    return rule.description, trigger.after, trigger.expect, trigger.within, trigger.for_each
