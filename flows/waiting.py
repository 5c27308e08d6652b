"""Waiting for flow runs that other processes carry out: one question to the server for all of them.

Each of sixty stages that wait for a worker would otherwise ask for itself, and the server would be busy answering.
Prefect's own events would tell without asking, but one that is lost while the server restarts is waited for for ever.
"""

import threading
import time
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.states import Crashed, State

POLL_SECONDS = 1.0
AT_ONCE = 200  # flow runs in one answer, at most

_lock = threading.Lock()
_waited_for: set[UUID] = set()
_ended: dict[UUID, State] = {}
_asked = 0.0


def wait_for(run: UUID) -> State:
    """How a flow run ended, once it has; crashed, if it was deleted.

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
                    return _ended[run]
            time.sleep(POLL_SECONDS)
    finally:
        with _lock:
            _waited_for.discard(run)
            _ended.pop(run, None)


def _ask() -> None:
    """Take note of those that have ended, and of those that somebody has deleted."""
    global _asked
    open_ones = list(_waited_for - _ended.keys())
    try:
        with get_client(sync_client=True) as client:
            for start in range(0, len(open_ones), AT_ONCE):
                asked_for = open_ones[start : start + AT_ONCE]
                where = FlowRunFilter(id=FlowRunFilterId(any_=asked_for))
                found = {run.id: run.state for run in client.read_flow_runs(flow_run_filter=where, limit=AT_ONCE)}
                found |= {run: Crashed(message="Its run was deleted.") for run in asked_for if run not in found}
                _ended.update((run, state) for run, state in found.items() if state is not None and state.is_final())
    finally:
        _asked = time.monotonic()  # after the answer: a slow server gets a second's rest as well
