"""`make cluster-test`: the main job over four machines, one of which loses its power in the middle.

A server (PostgreSQL, S3, Prefect, MLflow, and the driver of the flow), a worker without and two with a "GPU", each with
a clone of its own. The flow must end with the numbers of a plain `dvc repro` of the same settings, no stage may run
twice but the one that was interrupted, and a second clone must get everything from the DVC remote. Then two of the
machines that are left pack a data set together.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from components.config import override, read_yaml
from components.files import read_json, sha256_tree
from components.paths import ROOT
from tests.machines import Machine, machines, refused
from tests.pictures import noise
from tests.pipeline_project import git

pytestmark = pytest.mark.cluster

SETTINGS = {
    "threads": "1",
    "scenes.images": "200",
    "data.shard_images": "100",
    "adapter.held_out": "32",
    "adapter.warmup_epochs": "1",
    "adapter.joint_epochs": "1",
    "adapter.draws": "1",
    "evaluation.images": "16",
    "evaluation.qualities": "[0, 2, 4]",
    "evaluation.jpeg_qualities": "[5, 50]",
    "evaluation.webp_qualities": "[5]",
    "evaluation.bootstrap": "100",
}
"""The demo, made small enough for two cores: its real models, fewer pictures. COTAM_CLUSTER_FULL=1 runs all of it."""

INTERRUPTED = "evaluate@elic-micro-llava"
GPUS = ("gpu-1", "gpu-2")
POOLS = {"server": "cluster", "cpu-1": "cluster-cpu", **dict.fromkeys(GPUS, "cluster-gpu")}
PYTHON = sys.executable


def say(text: str) -> None:
    print(f"  {time.strftime('%H:%M:%S')} {text}", flush=True)


@pytest.fixture(scope="module")
def origin(tmp_path_factory) -> Path:
    """The repository that everyone clones: this checkout with its edits, small settings and an S3 remote for DVC."""
    folder = tmp_path_factory.mktemp("origin") / "cotam"
    subprocess.run(["git", "clone", "-q", "--no-hardlinks", str(ROOT), str(folder)], check=True)
    listed = git(ROOT, "ls-files", "--modified", "--others", "--exclude-standard", "-z").split("\0")
    for name in filter(None, listed):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    settings = read_yaml(folder / "params.yaml")
    if not os.environ.get("COTAM_CLUSTER_FULL"):
        for key, value in SETTINGS.items():
            override(settings, key, value)
    (folder / "params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    dvc = [PYTHON, "-m", "dvc", "--cd", str(folder)]
    subprocess.run([*dvc, "remote", "add", "--default", "cluster", "s3://cotam/dvc"], check=True, capture_output=True)
    (folder / "dvc.lock").unlink()  # nothing may be found that was not made here
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "settings of the cluster test")
    return folder


def environment(checkout: Path) -> dict[str, str]:
    """What a person's shell has who has activated the virtual environment, and no more."""
    extra = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part and part != str(ROOT)]
    return {
        "PATH": os.pathsep.join([str(Path(PYTHON).parent), "/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"]),
        "PYTHONPATH": os.pathsep.join([str(checkout), *extra]),
        "OMP_NUM_THREADS": "1",
        "LANG": "C.UTF-8",
        "DVC_NO_ANALYTICS": "1",
    }


@pytest.fixture(scope="module")
def expected(origin, tmp_path_factory) -> dict[str, list]:
    """Stage -> hashes of its results, of a plain `dvc repro` of the same commit."""
    folder = tmp_path_factory.mktemp("plain") / "cotam"
    git(origin, "clone", "-q", str(origin), str(folder))
    begun = time.monotonic()
    own = {"HOME": str(folder.parent), "DVC_SITE_CACHE_DIR": str(folder.parent / "dvc")}
    done = subprocess.run([PYTHON, "-m", "dvc", "repro"], cwd=folder, env=environment(folder) | own,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    say(f"plain dvc repro took {time.monotonic() - begun:.0f} s")
    return results(folder)


def results(checkout: Path) -> dict[str, list]:
    stages = yaml.safe_load((checkout / "dvc.lock").read_text())["stages"]
    return {name: [(out["path"], out["md5"]) for out in stage["outs"]] for name, stage in stages.items()}


@pytest.fixture(scope="module")
def cluster(origin, tmp_path_factory):
    """The machines, with the services and the workers running."""
    if why := refused():
        pytest.skip(f"no machines can be made here: {why}")
    folder = tmp_path_factory.mktemp("cluster")
    checkout = folder / "home" / "cotam"
    with machines(folder, ["server", "cpu-1", *GPUS], environment(checkout)) as found:
        for machine in found.values():
            git(origin, "clone", "-q", "--no-hardlinks", str(origin), str(machine.outside / "cotam"))
            machine.environment["COTAM_CHECKOUT"] = str(checkout)
        server = found["server"]
        cotam = [PYTHON, "-m", "components.cli", "services"]
        begun = time.monotonic()
        server.run(*cotam, "up", "--postgres", "--s3", "--host", server.address)
        say(f"services took {time.monotonic() - begun:.0f} s")
        server.run(*cotam, "env", str(checkout.parent / "worker.env"))
        lines = (server.outside / "worker.env").read_text().splitlines()
        for machine in found.values():
            machine.environment |= dict(line.split("=", 1) for line in lines)
            machine.environment["PREFECT_HOME"] = str(checkout.parent / "prefect")
            machine.environment["no_proxy"] = machine.environment["NO_PROXY"] = "*"
        for name, pool in POOLS.items():
            found[name].start("worker.log", PYTHON, "-m", "flows.workers", "--pools", pool, "--name", name)
        yield found
        server.run(*cotam, "down")


def ran(machine: Machine) -> list[str]:
    """The stages whose command a machine has started, as its worker's log says; as often as it has."""
    log = (machine.outside / "worker.log").read_text(errors="replace")
    return re.findall(r"Running stage '([^']+)'", log)


def test_the_flow_survives_a_machine(cluster, expected, origin, injected):
    server = cluster["server"]
    begun = time.monotonic()
    deadline = begun + (6 * 3600 if os.environ.get("COTAM_CLUSTER_FULL") else 1200)

    def going_on() -> bool:
        assert time.monotonic() < deadline, logs(cluster)
        return flow.poll() is None

    flow = server.start("flow.log", PYTHON, "-m", "prefect", "deployment", "run", "train-and-eval/cluster", "--watch")
    victim = None
    while going_on() and victim is None:
        victim = next((name for name in GPUS if INTERRUPTED in ran(cluster[name])), None)
        time.sleep(0.5)
    assert victim, logs(cluster)
    killed = cluster[victim].cut_power()
    injected("machine")
    lost = time.monotonic()
    say(f"{INTERRUPTED} runs on {victim}: power cut, {killed} processes gone, {lost - begun:.0f} s after the start")
    [other] = set(GPUS) - {victim}
    while going_on() and INTERRUPTED not in ran(cluster[other]):
        time.sleep(0.5)
    say(f"picked up by {other} after {time.monotonic() - lost:.0f} s")
    while going_on():
        time.sleep(0.5)
    assert flow.returncode == 0, logs(cluster)
    say(f"the flow took {time.monotonic() - begun:.0f} s")

    assert results(server.outside / "cotam") == expected
    began = {name: ran(machine) for name, machine in cluster.items()}
    counted = {stage: [name for name in began for _ in range(began[name].count(stage))] for stage in expected}
    assert sorted(counted.pop(INTERRUPTED)) == sorted(GPUS)
    assert all(len(where) == 1 for where in counted.values()), counted
    assert counted["report"] == counted["render"] == ["cpu-1"] and not ran(server)
    assert set(counted["joint@elic-micro-llava"]) <= set(GPUS)

    runs = read_json(server.outside / "cotam" / "results" / "report" / "run.json")
    champion = server.run(PYTHON, "-c", _CHAMPION)
    assert runs["revision"] == git(origin, "rev-parse", "HEAD").strip()
    assert "cotam-adapter-elic-micro-llava {'champion': " in champion

    fresh = server.outside / "fresh"
    git(origin, "clone", "-q", "--no-hardlinks", str(origin), str(fresh))
    restored = server.run("env", "-C", str(server.home / "fresh"), PYTHON, "-m", "flows.remote_repro")
    assert "Running stage" not in restored
    assert results(fresh) == expected
    for machine in (cluster["cpu-1"], cluster[other]):
        password = server.environment["MLFLOW_TRACKING_PASSWORD"]
        assert password not in (machine.outside / "worker.log").read_text()
        assert server.environment["AWS_SECRET_ACCESS_KEY"] not in (machine.outside / "worker.log").read_text()


def test_prefect_tells_the_truth_afterwards(cluster):
    said = cluster["server"].run(PYTHON, "-c", _STATES)
    assert "RUNNING" not in said and "PENDING" not in said
    assert said.split().count("CRASHED") == 1  # the attempt that lost its machine


@pytest.fixture(scope="module")
def two_packers(cluster) -> list[str]:
    """The machines with workers for what needs no GPU: one more than before, on a machine that is left."""
    deadline = time.monotonic() + 120

    def waited() -> None:
        assert time.monotonic() < deadline, logs(cluster)
        time.sleep(1)

    while not (left := [name for name in GPUS if cluster[name].processes()]):
        waited()
    name = f"{left[0]}-cpu"
    cluster[left[0]].start("packer.log", PYTHON, "-m", "flows.workers", "--pools", "cluster-cpu", "--name", name)
    while name not in cluster["server"].run(PYTHON, "-c", _WORKERS):
        waited()
    return ["cpu-1", left[0]]


@pytest.mark.parametrize("kind", ["folder", "store"])
def test_machines_share_the_packing_of_a_data_set(cluster, two_packers, tmp_path_factory, kind):
    server, disk = cluster["server"], tmp_path_factory.mktemp(f"disk-{kind}")  # which all of them mount
    photos, out, alone = disk / "photos", disk / "shards", disk / "alone"
    photos.mkdir()
    for number in range(200):
        noise(number, 96, 64).save(photos / f"{number}.png")
    source = str(photos)
    if kind == "store":
        source = "s3://cotam/photos"
        server.run(PYTHON, "-c", _UPLOAD, source, str(photos))
    asked = {"source": source, "out": str(out), "parts": 4}
    given = [word for name, value in asked.items() for word in ("--param", f"{name}={value}")]
    server.run(PYTHON, "-m", "prefect", "deployment", "run", "shard-dataset/cluster", "--watch", *given)
    shared = {name: parts_made(cluster[name], source) for name in two_packers}
    say(f"parts of {source}: {shared}")
    assert sorted(part for parts in shared.values() for part in parts) == [1, 2, 3, 4]
    assert all(shared.values())  # neither was idle
    assert read_json(out / "manifest.json")["images"] == 200
    server.run(PYTHON, "-m", "components.cli", "shard", source, "-o", str(alone), "--parts", "4")
    assert sha256_tree(out) == sha256_tree(alone)


def parts_made(machine: Machine, source: str) -> list[int]:
    """Which parts of `source` a machine's workers have begun, as their logs say; as often as they have."""
    logs = " ".join(log.read_text(errors="replace") for log in machine.outside.glob("*.log"))
    return [int(part) for part in re.findall(rf"Beginning \w+ run 'part (\d) of 4, {re.escape(source)}'", logs)]


def test_nobody_gets_in_without_the_password(cluster):
    server = cluster["server"].address
    said = cluster["cpu-1"].run(PYTHON, "-c", _KNOCK, server).split()
    assert said == ["prefect=401", "mlflow=401", "s3=401", "postgres=refused"]


_KNOCK = """
import socket, sys, urllib.error, urllib.request
server = sys.argv[1]
ask = urllib.request.build_opener(urllib.request.ProxyHandler({}))
for name, url in {
    "prefect": f"http://{server}:4200/api/admin/version",
    "mlflow": f"http://{server}:5000/api/2.0/mlflow/experiments/get-by-name?experiment_name=cotam",
    "s3": f"http://{server}:9000/v1/AUTH_cotam/cotam",  # the bucket, by Swift's own name
}.items():
    try:
        print(f"{name}={ask.open(url).status}")
    except urllib.error.HTTPError as error:
        print(f"{name}={error.code}")
try:
    socket.create_connection((server, 5433), 5)
except ConnectionRefusedError:
    print("postgres=refused")
"""

_WORKERS = """
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    for worker in client.read_workers_for_work_pool("cluster-cpu"):
        print(worker.name)
"""

_UPLOAD = """
import sys
from pathlib import Path
from urllib.parse import urlsplit
import boto3
where = urlsplit(sys.argv[1])
for path in Path(sys.argv[2]).iterdir():
    boto3.client("s3").upload_file(str(path), where.netloc, f"{where.path[1:]}/{path.name}")
"""

_CHAMPION = """
from mlflow import MlflowClient
for model in MlflowClient().search_registered_models():
    print(model.name, dict(model.aliases))
"""

_STATES = """
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    for run in client.read_flow_runs():
        print(run.state.type.value)
"""


def logs(cluster: dict[str, Machine]) -> str:
    """The ends of everything that was written."""
    said = []
    for machine in cluster.values():
        for log in sorted(machine.outside.glob("*.log")):
            end = log.read_text(errors="replace").splitlines()[-40:]
            said += [f"== {machine.name} {log.name}", *end]
    return "\n".join(said)
