"""What is put into a server before anybody works for it."""

import asyncio
import re
import threading
import time
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from prefect import flow
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.states import Pending

from components.errors import CotamError
from components.files import read_json
from flows import crash_watch, services, workers
from flows.crash_watch import TAG, watch_for_crashes
from flows.workers import PODS, check_clock, make_pools, wait_for_server


def test_pools_that_are_there_get_the_templates_of_pods(running, monkeypatch):
    services.up(running)
    api = services.environment(running)["PREFECT_API_URL"]
    # Under other names than those of the deployments, which need their pools.
    monkeypatch.setattr(workers, "CLUSTER", {"some": None, "some-cpu": 1, "some-gpu": 1})
    monkeypatch.setattr(workers, "PODS", {f"some-{kind}": PODS[f"cluster-{kind}"] for kind in ("cpu", "gpu")})

    async def pools(kubernetes):
        async with PrefectClient(api) as client:
            await make_pools(client, kubernetes)
            return {pool.name: pool for pool in await client.read_work_pools()}

    async def make(name, kind):
        async with PrefectClient(api) as client:
            await client.create_work_pool(WorkPoolCreate(name=name, type=kind, base_job_template={}))

    async def drop(*names):
        async with PrefectClient(api) as client:
            for name in names:
                await client.delete_work_pool(name)

    try:
        asyncio.run(make("some-gpu", "kubernetes"))
        found = asyncio.run(pools(True))
        for name, path in workers.PODS.items():
            assert found[name].type == "kubernetes"
            assert found[name].base_job_template == read_json(path)
        assert found["some"].type == "process"
        asyncio.run(drop("some-gpu"))
        assert asyncio.run(pools(False))["some-gpu"].type == "process"
        with pytest.raises(CotamError, match="The pool some-gpu is of type process; `prefect work-pool delete"):
            asyncio.run(pools(True))
    finally:
        asyncio.run(drop(*workers.CLUSTER))


@contextmanager
def answering(status, ahead=0.0):
    """A client of a server that answers everything with `status`, and whose clock is `ahead` by so many seconds."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()

        def date_time_string(self, timestamp=None):
            return super().date_time_string(time.time() + ahead)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/api"
    finally:
        server.shutdown()
        server.server_close()


def ask(url, question):
    async def of():
        async with PrefectClient(url) as client:
            await question(client)

    asyncio.run(of())


def test_a_server_with_another_password_is_one_sentence():
    with (
        answering(401) as url,
        pytest.raises(CotamError, match="refuses this machine's password; set PREFECT_API_AUTH_STRING"),
    ):
        ask(url, wait_for_server)


@pytest.mark.parametrize(("ahead", "words"), [(60, "behind"), (-3600, "ahead of")])
def test_a_worker_with_a_wrong_clock_does_not_join(ahead, words, injected):
    pattern = rf"This machine's clock is (\d+) s {words} that of Prefect's server; set both by NTP"
    with answering(200, ahead) as url, pytest.raises(CotamError, match=pattern) as error:
        ask(url, check_clock)
    injected("clock")
    assert abs(int(re.match(pattern, str(error.value))[1]) - abs(ahead)) <= 5


def test_clocks_that_differ_a_little_are_fine():
    with answering(200, 3) as url:
        ask(url, check_clock)


@flow(name="never-begins")
def never_begins():
    pass


def test_a_run_that_a_worker_took_and_that_never_began_is_crashed(running, monkeypatch, injected):
    """As when a machine dies between taking a run and its first heartbeat; the rule is the real one, but for its
    patience, and is put back."""
    services.up(running)
    api = services.environment(running)["PREFECT_API_URL"]

    async def rules(client):
        await watch_for_crashes(client)
        found = [(await client.read_automations_by_name(rule.name)) for rule in crash_watch.automations()]
        assert [len(same) for same in found] == [1, 1]
        return {same[0].name: same[0].trigger.within for same in found}

    async def end_of_a_run(client):
        run = await client.create_flow_run(never_begins, tags=[TAG])
        await client.set_flow_run_state(run.id, Pending())
        deadline = time.monotonic() + 120
        while not (state := (await client.read_flow_run(run.id)).state).is_final() and time.monotonic() < deadline:
            await asyncio.sleep(0.5)
        return state

    async def of():
        async with PrefectClient(api) as client:
            before = await rules(client)
            with monkeypatch.context() as hasty:
                hasty.setattr(crash_watch, "UNSTARTED", timedelta(seconds=10))
                assert await rules(client) == {**before, "crash-unstarted-runs": timedelta(seconds=10)}
                state = await end_of_a_run(client)
            assert await rules(client) == before
            return state

    state = asyncio.run(of())
    injected("unstarted")
    assert state.is_crashed() and state.message == "A worker took it, and it has not begun for 10 seconds."
