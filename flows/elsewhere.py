"""Work that a worker of some pool does, which may be another machine's: asked for, waited for, and after a crash asked
for again."""

import time
from collections.abc import Mapping
from typing import Any

from prefect import get_run_logger
from prefect.deployments import run_deployment
from prefect.states import State

from flows.waiting import wait_for

CRASH_WAITS = (5.0, 30.0, 120.0)
"""Seconds to wait before a run whose process or machine died is asked for again."""


def run_elsewhere(deployment: str, parameters: Mapping[str, Any], name: str) -> State:
    """Have a deployment run, and wait for its end; called inside a flow or task.

    Args:
        deployment: `FLOW/NAME`.
        parameters: of the flow.
        name: what the run is called.

    Returns:
        How it ended: crashed, if it did four times.
    """
    for wait in (*CRASH_WAITS, None):
        run = run_deployment(deployment, parameters=dict(parameters), flow_run_name=name, timeout=0)
        state = wait_for(run.id)
        if wait is None or not state.is_crashed():
            return state
        get_run_logger().warning("%s crashed (%s); again in %.0f s.", name, state.message, wait)
        time.sleep(wait)
    raise AssertionError("the last wait is None")
