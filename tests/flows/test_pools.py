"""What is put into a server before anybody works for it."""

import asyncio
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.testing.utilities import prefect_test_harness

from components.errors import CotamError
from components.files import read_json
from flows.workers import PODS, make_pools, wait_for_server


def test_pools_that_are_there_get_the_templates_of_pods():
    async def pools(kubernetes):
        async with get_client() as client:
            await make_pools(client, kubernetes)
            return {pool.name: pool for pool in await client.read_work_pools()}

    async def make(name, kind):
        async with get_client() as client:
            await client.create_work_pool(WorkPoolCreate(name=name, type=kind, base_job_template={}))

    async def drop(name):
        async with get_client() as client:
            await client.delete_work_pool(name)

    with prefect_test_harness(server_startup_timeout=120):
        asyncio.run(make("cluster-gpu", "kubernetes"))
        found = asyncio.run(pools(True))
        for name, path in PODS.items():
            assert found[name].type == "kubernetes"
            assert found[name].base_job_template == read_json(path)
        assert found["cluster"].type == "process"
        asyncio.run(drop("cluster-gpu"))
        assert asyncio.run(pools(False))["cluster-gpu"].type == "process"
        with pytest.raises(CotamError, match="The pool cluster-gpu is of type process; `prefect work-pool delete"):
            asyncio.run(pools(True))


def test_a_server_with_another_password_is_one_sentence():
    class Refuses(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(401)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuses)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    async def wait():
        async with PrefectClient(f"http://127.0.0.1:{server.server_port}/api") as client:
            await wait_for_server(client)

    try:
        with pytest.raises(CotamError, match="refuses this machine's password; set PREFECT_API_AUTH_STRING"):
            asyncio.run(wait())
    finally:
        server.shutdown()
        server.server_close()
