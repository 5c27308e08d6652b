"""Following a train-and-eval run from a terminal: which stage is where, and what it says."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, LogFilter, TaskRunFilter
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.sorting import LogSort

from flows.run_stage import OUTPUT

POLL_SECONDS = 2.0
SILENT_LOOKS = 3  # last lines may arrive a little after the end
PAGE = 200  # log lines per request, the server's limit
RESTORED = "is cached - skipping run"


@dataclass
class StageView:
    """A stage as the terminal shows it.

    Attributes:
        state: `waiting`, `running`, `done`, `up to date`, `restored`, `failed` or `skipped`.
        seconds: how long it took or has taken; 0 before it runs.
        lines: what it printed, oldest first.
    """

    name: str
    state: str = "waiting"
    seconds: float = 0.0
    lines: list[str] = field(default_factory=list)
    run_id: UUID | None = None


@dataclass
class Update:
    """What one look at the server has shown."""

    state: State
    stages: dict[str, StageView]
    new_lines: list[tuple[str, str]]

    @property
    def final(self) -> bool:
        """Whether the run has ended."""
        return self.state.is_final()


class Follower:
    """Looks at one run of train-and-eval, again and again, over one connection."""

    def __init__(self, client: SyncPrefectClient, run_id: UUID):
        self._client = client
        self._run_id = run_id
        self._stages: dict[str, StageView] = {}
        self._read: dict[UUID, int] = {}
        self._silent: dict[UUID, int] = {}  # runs that have ended -> looks since then in which they said nothing

    def updates(self, check: Callable[[], None]) -> Iterator[Update]:
        """One look every two seconds, the last one when the run has ended.

        A server that does not answer is asked again; `check` is called between two looks and raises to give up.
        """
        while True:
            try:
                update = self.look()
            except httpx.HTTPError:
                pass
            else:
                yield update
                if update.final:
                    return
            check()
            time.sleep(POLL_SECONDS)

    def look(self) -> Update:
        """The present state of the run and of its stages."""
        state = self._client.read_flow_run(self._run_id).state  # first: what follows is then at least as new
        where = FlowRunFilter.model_validate({"id": {"any_": [self._run_id]}})
        for task in self._client.read_task_runs(flow_run_filter=where, task_run_filter=_drive_tasks(), limit=PAGE):
            # Until it is submitted a task is called drive-123.
            if task.state is not None and not task.name.startswith("drive-"):
                view = self._stages.setdefault(task.name, StageView(task.name))
                view.state, view.seconds = _words(task.state), task.estimated_run_time.total_seconds()
        where = FlowRunFilter.model_validate({"parent_flow_run_id": {"any_": [self._run_id]}})
        children = self._client.read_flow_runs(flow_run_filter=where, limit=PAGE)
        new = [pair for child in children for pair in self._new_lines(child)]
        for view in self._stages.values():
            if view.state == "done" and view.run_id is None:
                view.state = "up to date"
            elif view.state == "done" and any(RESTORED in line for line in view.lines):
                view.state = "restored"
        return Update(state, self._stages, new)

    def _new_lines(self, child: FlowRun) -> Iterator[tuple[str, str]]:
        view = self._stages.setdefault(child.name, StageView(child.name))
        view.run_id = child.id
        if self._silent.get(child.id, 0) >= SILENT_LOOKS:  # questions take the server's time from the stages
            return
        where = LogFilter.model_validate({"flow_run_id": {"any_": [child.id]}})
        while True:
            seen = self._read.get(child.id, 0)
            logs = self._client.read_logs(where, limit=PAGE, offset=seen, sort=LogSort.TIMESTAMP_ASC)
            self._read[child.id] = seen + len(logs)
            for log in logs:
                if log.message.startswith(OUTPUT):
                    line = log.message.removeprefix(OUTPUT)
                    view.lines.append(line)
                    yield view.name, line
            if len(logs) < PAGE:
                if not logs and child.state is not None and child.state.is_final():
                    self._silent[child.id] = self._silent.get(child.id, 0) + 1
                return


def _drive_tasks() -> TaskRunFilter:
    # Prefect adds a task for each child run, called run-stage/cpu and so on; those have no upstream stage.
    return TaskRunFilter.model_validate({"subflow_runs": {"exists_": False}})


def _words(state: State) -> str:
    if state.is_completed():
        return "done"
    if state.is_running():
        return "running"
    if state.is_failed() or state.is_crashed():
        return "failed"
    return "waiting" if state.name != "NotReady" else "skipped"
