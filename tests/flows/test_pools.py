"""What is put into a server before anybody works for it."""

import asyncio
import re
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolCreate

from components.errors import CotamError
from components.files import read_json
from flows import services, workers
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
def test_a_worker_with_a_wrong_clock_does_not_join(ahead, words):
    pattern = rf"This machine's clock is (\d+) s {words} that of Prefect's server; set both by NTP"
    with answering(200, ahead) as url, pytest.raises(CotamError, match=pattern) as error:
        ask(url, check_clock)
    assert abs(int(re.match(pattern, str(error.value))[1]) - abs(ahead)) <= 5


def test_clocks_that_differ_a_little_are_fine():
    with answering(200, 3) as url:
        ask(url, check_clock)
