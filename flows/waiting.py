"""Waiting for flow runs that other processes carry out: one question to the server for all of them.

Each of sixty stages that wait for a worker would otherwise ask for itself, and the server would be busy answering.
Prefect's own events would tell without asking, but one that is lost while the server restarts is waited for for ever.
"""

import threading
import time
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import TERMINAL_STATES
from prefect.states import State

POLL_SECONDS = 1.0
AT_ONCE = 200  # flow runs in one answer, at most

_lock = threading.Lock()
_waited_for: set[UUID] = set()
_ended: dict[UUID, State] = {}
_asked = 0.0


def wait_for(run: UUID) -> State:
    """How a flow run ended, once it has.

    Raises:
        httpx.HTTPError: the server does not answer.
    """
    with _lock:
        _waited_for.add(run)
    try:
        while True:
            with _lock:
                if time.monotonic() - _asked >= POLL_SECONDS:
                    _ask()
                if run in _ended:
                    return _ended.pop(run)
            time.sleep(POLL_SECONDS)
    finally:
        with _lock:
            _waited_for.discard(run)


def _ask() -> None:
    """Take note of those that have ended."""
    global _asked
    _asked = time.monotonic()
    open_ones, ended = list(_waited_for - _ended.keys()), {"type": {"any_": list(TERMINAL_STATES)}}
    with get_client(sync_client=True) as client:
        for start in range(0, len(open_ones), AT_ONCE):
            where = {"id": {"any_": open_ones[start : start + AT_ONCE]}, "state": ended}
            for run in client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(where)):
                _ended[run.id] = run.state
