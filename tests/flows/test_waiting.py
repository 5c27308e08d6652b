"""Waiting for flow runs, of a real server: all in one question, those that end, and those that are deleted."""

import threading
from uuid import uuid4

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Running

from flows import services, waiting
from tests.flows.conftest import of_server


@flow(name="stands-still")
def stands_still():
    pass


def test_each_waits_for_its_own(running, monkeypatch):
    services.up(running)
    found, asked, ask = {}, [], waiting._ask

    def counted():
        asked.append(set(waiting._waited_for))
        with temporary_settings(of_server(running)):
            ask()

    monkeypatch.setattr(waiting, "_ask", counted)
    with temporary_settings(of_server(running)), get_client(sync_client=True) as client:
        runs = [client.create_flow_run(stands_still, state=Running()).id for _ in range(3)]
        threads = [
            threading.Thread(target=lambda run=run: found.update({run: waiting.wait_for(run)}), daemon=True)
            for run in runs
        ]
        for thread in threads:
            thread.start()
        client.set_flow_run_state(runs[0], Completed(), force=True)
        threads[0].join(30)
        client.delete_flow_run(runs[1])
        threads[1].join(30)
        assert set(found) == set(runs[:2]) and threads[2].is_alive()
        client.set_flow_run_state(runs[2], Completed(), force=True)
        threads[2].join(30)
    assert found[runs[0]].is_completed() and found[runs[2]].is_completed()
    assert found[runs[1]].is_crashed() and found[runs[1]].message == "Its run was deleted."
    assert any(len(together) > 1 for together in asked)
    assert not waiting._waited_for and not waiting._ended


def test_a_server_that_is_gone_is_an_error_for_who_waits():
    nobody = {PREFECT_API_URL: "http://127.0.0.1:1/api"}
    with temporary_settings(nobody), pytest.raises(httpx.ConnectError):
        waiting.wait_for(uuid4())
    assert not waiting._waited_for
