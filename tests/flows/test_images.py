"""The images that `infra/images.sh` has built, started as compose and Kubernetes start them.

Building takes minutes, gigabytes and root, so that comes first, by hand; without the images this is skipped.
"""

import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager

import httpx
import pytest
from PIL import Image
from skimage import data

from components.paths import ROOT
from tests.flows.conftest import free_port
from tests.pipeline_project import git

pytestmark = pytest.mark.soak

ENVIRONMENT = {**os.environ, "BUILDAH_ISOLATION": "chroot"}


def buildah(*command: str) -> str:
    done = subprocess.run(["buildah", *command], env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def box():
    """A container of the image `cotam:cpu`."""
    listing = ["buildah", "images", "--noheading", "--filter", "reference=localhost/cotam:cpu"]
    if not shutil.which("buildah") or not subprocess.run(listing, capture_output=True, text=True).stdout.strip():
        pytest.skip("there is no image cotam:cpu; run infra/images.sh first")
    made = buildah("from", "--pull-never", "localhost/cotam:cpu")
    yield made
    buildah("rm", made)


@contextmanager
def started(log, *command: str):
    """Something that stays, in a container; its process is killed afterwards."""
    with log.open("wb") as output:
        process = subprocess.Popen(["buildah", "run", *command], env=ENVIRONMENT, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def await_true(what, process, log, seconds=120):
    deadline = time.monotonic() + seconds
    while not what():
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.5)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def test_it_is_an_ordinary_user_in_the_checkout_with_its_history_and_without_secrets(box):
    assert buildah("run", box, "--", "git", "status", "--short") == ""
    said = buildah("run", box, "--", "sh", "-c", "id -u; pwd; git rev-parse HEAD; ls .git")
    user, folder, revision, *files = said.split()
    assert (user, folder) == ("1000", "/opt/cotam")
    assert len(revision) == 40 and "HEAD" in files and "config" not in files


def test_it_codes_as_this_checkout_does(box, tmp_path):
    """The same libraries, so the same stream, bit by bit."""
    tmp_path.chmod(0o777)
    Image.fromarray(data.astronaut()[:200, :300]).save(tmp_path / "a.png")
    coding = ("encode", "--codec", "pretrained/codec/elic-micro")
    inside = ("--volume", f"{tmp_path}:/exchange", box, "--", "cotam", *coding)
    buildah("run", *inside, "/exchange/a.png", "-o", "/exchange/a.cotam")
    here = [sys.executable, "-m", "components.cli", *coding, str(tmp_path / "a.png"), "-o", str(tmp_path / "b.cotam")]
    subprocess.run(here, cwd=ROOT, check=True, capture_output=True)
    assert (tmp_path / "a.cotam").read_bytes() == (tmp_path / "b.cotam").read_bytes()


def test_server_deployments_and_a_worker_run_a_stage(box, tmp_path):
    port, password = free_port(), "cotam:not-a-secret"
    api = f"http://127.0.0.1:{port}/api"
    client = ("--env", f"PREFECT_API_URL={api}", "--env", f"PREFECT_API_AUTH_STRING={password}")
    server = ("--env", f"PREFECT_SERVER_API_AUTH_STRING={password}", box, "--")
    server += ("python", "-m", "flows.prefect_server", "--host", "127.0.0.1", "--port", str(port))
    with started(tmp_path / "server", *server) as process:
        await_true(lambda: answers(f"{api}/health"), process, tmp_path / "server")
        buildah("run", *client, box, "--", "python", "-m", "flows.deploy")
        worker = (*client, box, "--", "python", "-m", "flows.workers", "--pools", "cluster-cpu", "--name", "box")
        with started(tmp_path / "worker", *worker) as working:
            await_true(lambda: "started!" in (tmp_path / "worker").read_text(), working, tmp_path / "worker")
            ask = ("prefect", "deployment", "run", "run-stage/cluster-cpu", "--watch", "--param", "stage=weights")
            assert "Completed" in buildah("run", *client, box, "--", *ask)
    assert "Running stage 'weights'" in (tmp_path / "worker").read_text()


def test_the_revision_is_one_of_this_repository(box):
    revision = buildah("run", box, "--", "git", "rev-parse", "HEAD")
    assert git(ROOT, "cat-file", "-t", revision).strip() == "commit"
