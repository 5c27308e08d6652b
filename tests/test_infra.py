"""What infra/ and prefect.yaml say, against the published schemas, and against each other."""

import json
import re
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import yaml

from components.paths import ROOT
from infra.audit import judge

INFRA = ROOT / "infra"
KUBERNETES = "1.31"
MANIFESTS = sorted((INFRA / "kubernetes").glob("*.yaml"))
POOLS = sorted((INFRA / "kubernetes").glob("pool-*.json"))


def documents(path: Path) -> list[dict]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def validate(manifest: dict) -> None:
    import kubernetes_validate

    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


@pytest.mark.parametrize("path", [one for one in MANIFESTS if one.stem != "kustomization"], ids=lambda path: path.name)
def test_manifests_are_what_kubernetes_takes(path):
    for document in documents(path):
        validate(document)
        assert document["kind"] == "Namespace" or document["metadata"]["namespace"] == "cotam"


def test_a_wrong_manifest_is_noticed():
    import kubernetes_validate

    [job] = [document for document in documents(INFRA / "kubernetes/workers.yaml") if document["kind"] == "Job"]
    job["spec"]["template"]["spec"]["containers"][0]["imagee"] = "cotam"
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(job)


def test_the_kustomization_lists_every_manifest():
    [kustomization] = documents(INFRA / "kubernetes/kustomization.yaml")
    assert sorted(kustomization["resources"]) == sorted({path.name for path in MANIFESTS} - {"kustomization.yaml"})


@pytest.mark.skipif(not shutil.which("kubectl"), reason="wants kubectl, which Debian has as kubernetes-client")
def test_kubectl_builds_the_kustomization():
    """It is built, as `kubectl apply -k` would, with every object of the manifests."""
    build = ["kubectl", "kustomize", str(INFRA / "kubernetes")]
    built = subprocess.run(build, capture_output=True, text=True, timeout=120, check=True).stdout
    objects = [one for one in yaml.safe_load_all(built) if one]
    listed = [one for path in MANIFESTS for one in documents(path) if "metadata" in one]
    assert sorted(map(_name, objects)) == sorted(map(_name, listed))
    for one in objects:
        validate(one)


def _name(document: dict) -> tuple[str, str]:
    return document["kind"], document["metadata"]["name"]


def pods() -> list[tuple[str, dict]]:
    """Every pod that the manifests and the pools make."""
    found = []
    for path in MANIFESTS:
        for document in documents(path):
            if template := document.get("spec", {}).get("template"):
                found.append((f"{path.name}:{document['metadata']['name']}", template["spec"]))
    return found + [(path.name, job(path)["spec"]["template"]["spec"]) for path in POOLS]


def job(path: Path) -> dict:
    """The job of a pool, with the defaults of its variables."""
    from prefect.utilities.templating import apply_values

    template = json.loads(path.read_text())
    values = {name: one["default"] for name, one in template["variables"]["properties"].items() if "default" in one}
    values |= {"name": "stage", "env": [{"name": "A", "value": "1"}], "labels": {"a": "b"}}
    values["command"] = values["command"].split()  # as the worker does
    return apply_values(deepcopy(template["job_configuration"]["job_manifest"]), values)


@pytest.mark.parametrize("path", POOLS, ids=lambda path: path.name)
def test_pools_are_what_prefect_and_kubernetes_take(path):
    from prefect.server.schemas.actions import WorkPoolCreate

    template = json.loads(path.read_text())
    WorkPoolCreate(name=path.stem, type="kubernetes", base_job_template=template)
    used = set(re.findall(r"{{ (\w+) }}", json.dumps(template["job_configuration"])))
    assert used == set(template["variables"]["properties"])
    manifest = job(path)
    assert "{{" not in json.dumps(manifest)
    validate(manifest)


def test_pools_have_what_prefects_own_template_has():
    """The shape that prefect-kubernetes reads, from the metadata that Prefect's server ships."""
    import prefect

    views = Path(prefect.__file__).parent / "server/api/collections_data/views/aggregate-worker-metadata.json"
    published = json.loads(views.read_text())["prefect-kubernetes"]["kubernetes"]["default_base_job_configuration"]
    for path in POOLS:
        ours = json.loads(path.read_text())
        assert ours["job_configuration"].keys() == published["job_configuration"].keys()
        [container] = ours["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]["containers"]
        [theirs] = published["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]["containers"]
        assert container["name"] == theirs["name"] and container["args"] == theirs["args"]


def test_a_gpu_stage_asks_for_its_gpu_and_room_in_shared_memory():
    pod = job(INFRA / "kubernetes/pool-gpu.json")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert pod["nodeSelector"] and pod["tolerations"]
    [memory] = [volume for volume in pod["volumes"] if volume["name"] == "shared-memory"]
    assert memory["emptyDir"] == {"medium": "Memory", "sizeLimit": "16Gi"}
    assert {source["secretRef"]["name"] for source in container["envFrom"]} == {"cotam", "cotam-store"}


@pytest.mark.parametrize(("name", "pod"), pods(), ids=lambda value: value if isinstance(value, str) else "")
def test_no_pod_is_root_or_holds_a_secret(name, pod):
    assert pod["securityContext"]["runAsNonRoot"]
    for container in pod["containers"]:
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        for variable in container.get("env", []):
            secret = re.search("PASSWORD|SECRET|AUTH_STRING|KEY", variable["name"])
            assert "valueFrom" in variable or not secret or variable["name"] in REFERENCES


REFERENCES = {
    "PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET_NAME": "cotam",
    "PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET_KEY": "PREFECT_API_AUTH_STRING",
}
"""Settings of prefect-kubernetes, by which a stage's job refers to the password instead of holding it."""


def test_jobs_of_stages_refer_to_the_password_and_do_not_hold_it():
    documented = (ROOT / "docs/cluster.md").read_text()
    starters = dict(pods())["workers.yaml:starter"]["containers"]
    assert len(starters) == len(POOLS)
    for container in starters:
        given = {variable["name"]: variable.get("value") for variable in container["env"]}
        assert REFERENCES.items() <= given.items()
    assert "create secret generic cotam " in documented and "PREFECT_API_AUTH_STRING=" in documented


def test_the_compose_file_is_what_compose_takes():
    from compose_spec import ComposeSpecification

    said = yaml.safe_load((INFRA / "compose.yaml").read_text())
    said = {key: value for key, value in said.items() if not key.startswith("x-")}
    read = ComposeSpecification.model_validate(said).model_dump(mode="json", by_alias=True, exclude_unset=True)
    # The model leaves out what it does not know, so what it kept must be all that was said.
    assert lost(said, read) == []
    wrong = deepcopy(said)
    wrong["services"]["s3"]["imagee"] = "x"
    read = ComposeSpecification.model_validate(wrong).model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert lost(wrong, read) == ["/services/s3/imagee"]


def lost(said, read, where: str = "") -> list[str]:
    if not isinstance(said, dict) or not isinstance(read, dict):
        return []
    missing = [f"{where}/{key}" for key in said if key not in read]
    return missing + [one for key in said if key in read for one in lost(said[key], read[key], f"{where}/{key}")]


def test_compose_publishes_to_loopback_unless_asked_and_holds_no_secret():
    text = (INFRA / "compose.yaml").read_text()
    services = yaml.safe_load(text)["services"]
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert len(ports) == 3 and all(port.startswith("${COTAM_HOST:-127.0.0.1}:") for port in ports)
    assert "ports" not in services["postgres"]
    named = set(re.findall(r"^(\w+)=", (INFRA / "cluster.env.example").read_text(), re.MULTILINE))
    assert set(re.findall(r"\${(\w+):\?}", text)) <= named
    assert re.search(r"^(POSTGRES_PASSWORD|COTAM_PASSWORD|AWS_SECRET_ACCESS_KEY)=.", _example(), re.MULTILINE) is None
    for service in services.values():
        for condition in service.get("depends_on", {}):
            assert condition in services


def _example() -> str:
    return (INFRA / "cluster.env.example").read_text()


def test_every_image_is_a_target_of_the_dockerfile():
    targets = set(re.findall(r"^FROM \S+ AS (\w+)$", (INFRA / "Dockerfile").read_text(), re.MULTILINE))
    used = set()
    for path in [*MANIFESTS, *POOLS, INFRA / "compose.yaml"]:
        used |= set(re.findall(r"(?:cotam|COTAM_IMAGE:-cotam}):([a-z]+)\b", path.read_text()))
    assert used <= targets and {"cpu", "cuda", "kubernetes"} <= used


def test_pods_send_heartbeats_as_often_as_other_workers():
    from flows.services import HEARTBEAT_SECONDS

    assert f"PREFECT_FLOWS_HEARTBEAT_FREQUENCY={HEARTBEAT_SECONDS} " in (INFRA / "Dockerfile").read_text()


@pytest.mark.parametrize("name", ["worker", "mlflow"])
def test_policies_name_what_they_allow(name):
    policy = json.loads((INFRA / f"s3/{name}-policy.json").read_text())
    for statement in policy["Statement"]:
        if statement["Effect"] == "Allow":
            assert not [action for action in statement["Action"] if "*" in action]
            assert all(resource.startswith("arn:aws:s3:::cotam") for resource in statement["Resource"])
    [denied] = [statement for statement in policy["Statement"] if statement["Effect"] == "Deny"]
    assert denied["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    writes = [one for one in policy["Statement"] if "s3:PutObject" in one["Action"] and one["Effect"] == "Allow"]
    assert {resource for one in writes for resource in one["Resource"]} == {
        "worker": {"arn:aws:s3:::cotam/dvc/*", "arn:aws:s3:::cotam/shards/*"},
        "mlflow": {"arn:aws:s3:::cotam/mlflow/*"},
    }[name]


def test_every_flow_has_a_local_deployment_and_most_one_for_clusters():
    from flows.crash_watch import TAG

    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    pools: dict[str, set[str]] = {}
    for one in deployments:
        path, _, function = one["entrypoint"].partition(":")
        assert f"def {function}(" in (ROOT / path).read_text()
        pools.setdefault(one["entrypoint"], set()).add(one["work_pool"]["name"])
        assert ("pull" in one) == one["work_pool"]["name"].startswith("cluster") == (one.get("tags") == [TAG])
    for entrypoint, found in pools.items():
        assert found & {"local", "cpu", "gpu"}
        assert any(name.startswith("cluster") for name in found), entrypoint
    modules = (ROOT / "flows").glob("*.py")
    flows = {path.name for path in modules if re.search(r"^@flow", path.read_text(), re.MULTILINE)}
    assert flows == {Path(entrypoint.partition(":")[0]).name for entrypoint in pools}


@pytest.mark.parametrize("path", POOLS, ids=lambda path: path.name)
def test_a_pod_may_wait_for_its_node_before_its_run_is_called_crashed(path):
    from flows.crash_watch import UNSTARTED

    patience = json.loads(path.read_text())["variables"]["properties"]["pod_watch_timeout_seconds"]["default"]
    assert UNSTARTED.total_seconds() > patience


@pytest.mark.parametrize("script", sorted(INFRA.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_parse(script):
    assert subprocess.run(["bash", "-n", str(script)], capture_output=True).returncode == 0


def audited(*packages: dict) -> str:
    return json.dumps({"dependencies": list(packages), "fixes": []})


def test_an_audit_tells_vulnerable_packages_from_those_nobody_knows():
    bad = {"name": "jinja2", "version": "3.0.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3.1.6"]}]}
    good = {"name": "pytest", "version": "9.0.0", "vulns": []}
    unknown = {"name": "numpy", "skip_reason": "Dependency not found on PyPI and could not be audited"}
    assert judge(audited(bad, good, unknown)) == (["jinja2 3.0.0: PYSEC-1 (mended in 3.1.6)"], ["numpy"], 3)
    assert judge(audited(good)) == ([], [], 1)
    for nothing in ("", "[]", "{}"):
        with pytest.raises(ValueError):
            judge(nothing)


@pytest.mark.parametrize(
    ("packages", "lenient", "code"),
    [
        (({"name": "a", "version": "1", "vulns": []},), False, 0),
        (({"name": "a", "skip_reason": "unknown"},), False, 1),
        (({"name": "a", "skip_reason": "unknown"},), True, 0),
        (({"name": "a", "version": "1", "vulns": [{"id": "X", "fix_versions": []}]},), True, 1),
        ((), True, 0),
    ],
)
def test_an_audit_passes_without_advisories_only_where_asked(packages, lenient, code, tmp_path):
    uvx = tmp_path / "uvx"
    report = tmp_path / "report.json"
    report.write_text(audited(*packages) if packages else "no network")
    uvx.write_text(f"#!/bin/sh\ncat {report}\n")
    uvx.chmod(0o755)
    command = [sys.executable, str(ROOT / "infra/audit.py"), *(["--where-reachable"] if lenient else [])]
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(command, env=path, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert ("NOT AUDITED" in done.stderr) == (not packages or "skip_reason" in packages[0])
