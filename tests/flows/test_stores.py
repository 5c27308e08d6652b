"""PostgreSQL and the S3 store by themselves: real servers, over the wire, whose secrets stay where they belong."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from components import cli
from components.errors import CotamError
from components.files import sha256_tree
from components.paths import ROOT
from flows import postgres, processes, s3_store, service_launch, service_options, services
from flows.service_options import Options
from tests import pipeline_project
from tests.flows.conftest import free_port


def secrets_of(project: Path) -> list[str]:
    return [(project / ".cotam" / path).read_text() for path in ("postgres/password", "s3/key")]


def test_the_databases_are_there_and_ask_for_the_password(stores):
    import psycopg

    project, _ = stores
    port = service_launch.port_of(services.status(project)["postgres"]["url"])
    passwords = Path(postgres.environment(project / ".cotam" / "postgres", port)["PGPASSFILE"])
    assert stat.S_IMODE(passwords.stat().st_mode) == 0o600
    for database in postgres.DATABASES:
        with psycopg.connect(postgres.url("postgresql", port, database), passfile=str(passwords)) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres.url("postgresql", port, "prefect"), password="guess")


def test_no_secret_is_in_a_log_or_a_command_line(stores):
    project, _ = stores
    for secret in secrets_of(project):
        for log in service_launch.run_folder(project).glob("*"):
            assert secret not in log.read_text()
        for name in ("postgres", "s3"):
            assert not [process for process in processes.marked(project, name) if secret in " ".join(process.cmdline())]
    for path in (project / ".cotam").rglob("*"):
        if path.is_file() and any(secret.encode() in path.read_bytes() for secret in secrets_of(project)):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_what_a_worker_elsewhere_needs_is_for_the_owners_eyes_alone(stores, tmp_path, capsys):
    project, _ = stores
    assert services.main(["env", str(tmp_path / "worker.env"), "--project", str(project)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'worker.env'}\n"
    said = dict(line.split("=", 1) for line in (tmp_path / "worker.env").read_text().splitlines())
    assert stat.S_IMODE((tmp_path / "worker.env").stat().st_mode) == 0o600
    assert said["AWS_ENDPOINT_URL"] == services.status(project)["s3"]["url"]
    assert {"PREFECT_API_URL", "MLFLOW_TRACKING_URI", "AWS_SECRET_ACCESS_KEY"} <= said.keys()
    assert not {"PREFECT_HOME", "NO_PROXY"} & said.keys()


def test_nothing_listens_beyond_loopback(stores):
    listening = [
        connection.laddr.ip
        for name in ("postgres", "s3")
        for process in processes.marked(stores[0], name)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 5 and set(listening) == {"127.0.0.1"}


def test_the_store_speaks_s3(s3, tmp_path):
    from botocore.exceptions import ClientError

    (tmp_path / "large").write_bytes(os.urandom(9 << 20))  # in parts
    s3.upload_file(str(tmp_path / "large"), s3_store.BUCKET, "a/large")
    s3.download_file(s3_store.BUCKET, "a/large", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == (tmp_path / "large").read_bytes()
    s3.put_object(Bucket=s3_store.BUCKET, Key="a/small", Body=b"0123456789")
    assert s3.get_object(Bucket=s3_store.BUCKET, Key="a/small", Range="bytes=2-4")["Body"].read() == b"234"
    listed = s3.list_objects_v2(Bucket=s3_store.BUCKET, Prefix="a/")["Contents"]
    assert [(entry["Key"], entry["Size"]) for entry in listed] == [("a/large", 9 << 20), ("a/small", 10)]
    with pytest.raises(ClientError, match=r"PreconditionFailed|412"):
        s3.get_object(Bucket=s3_store.BUCKET, Key="a/small", IfMatch='"0"')


def test_a_wrong_key_is_refused(s3):
    import boto3
    from botocore.exceptions import ClientError

    guessing = boto3.Session(s3_store.ACCESS_KEY, "guess").client("s3")
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        guessing.list_buckets()


def test_dvc_and_shards_travel_through_it(s3, tmp_path):
    project = pipeline_project.make(tmp_path / "made")
    pipeline_project.dvc(project, "remote", "add", "-d", "store", f"s3://{s3_store.BUCKET}/dvc")
    pipeline_project.dvc(project, "repro", "count")
    pipeline_project.dvc(project, "push", "--run-cache", "count", "render")
    pipeline_project.git(project, "add", "-A")
    pipeline_project.git(project, "commit", "-qm", "ran")
    other = pipeline_project.clone(project, tmp_path / "other")
    pipeline_project.dvc(other, "pull", "count", "render")
    assert sha256_tree(other / "data") == sha256_tree(project / "data")

    for name in ("coffee.png", "chelsea.png"):
        import skimage.data

        s3.upload_file(f"{skimage.data.__path__[0]}/{name}", s3_store.BUCKET, f"photos/{name}")
    command = [sys.executable, "-m", "components.cli", "shard", f"s3://{s3_store.BUCKET}/photos", "-o"]
    done = subprocess.run([*command, str(tmp_path / "shards")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "shards" / "manifest.json").exists()


def test_it_starts_again_with_what_it_held(stores, s3):
    project, _ = stores
    s3.put_object(Bucket=s3_store.BUCKET, Key="kept", Body=b"kept")
    folder = service_launch.run_folder(project)
    before = processes.load(folder, "s3")
    victim = psutil.Process(before.process.pid)
    victim.kill()
    victim.wait(10)
    processes.end(project, "s3")
    assert services.status(project)["s3"]["state"] == "dead"
    ports = {"s3": service_launch.port_of(before.url), "postgres": 0}
    service = service_launch.start(project, "s3", ports, Options(s3=True), {})
    service.save(folder)
    services.wait_ready(project, service)
    assert s3.get_object(Bucket=s3_store.BUCKET, Key="kept")["Body"].read() == b"kept"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "my-server"])
def test_a_host_that_is_no_address_is_one_sentence(host):
    with pytest.raises(CotamError, match="give the one that other machines reach this one by"):
        service_options.checked(host=host)


@pytest.mark.parametrize("host", ["::1", "2001:db8::5"])
def test_an_address_of_ipv6_is_one_sentence(host):
    with pytest.raises(CotamError, match="is an IPv6 address; the services listen on IPv4 only"):
        service_options.checked(host=host)


def test_whoever_lets_others_in_asks_for_a_password():
    assert service_options.checked(host="192.0.2.1").auth
    assert not service_options.checked(postgres=True).auth


def test_an_address_of_another_machine_is_one_sentence():
    with pytest.raises(CotamError, match=r"192\.0\.2\.1 is not an address of this machine"):
        services._free_port("prefect", "192.0.2.1")


def test_missing_programs_are_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(s3_store, "_PACKAGE", tmp_path / "nothing")
    with pytest.raises(CotamError, match=r"not installed: run infra/services\.sh"):
        service_launch.prepare(tmp_path, "s3")
    monkeypatch.setattr(postgres, "_DEBIAN", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CotamError, match=r"not installed: run infra/services\.sh"):
        service_launch.prepare(tmp_path, "postgres")


@pytest.mark.parametrize("name", ["postgres", "s3"])
def test_a_taken_port_is_one_sentence(stores, name, tmp_path, monkeypatch, capsys):
    url = services.status(stores[0])[name]["url"]
    for one, (variable, _) in service_launch.PORTS.items():
        monkeypatch.setenv(variable, str(service_launch.port_of(url) if one == name else free_port()))
    assert cli.main(["services", "up", "--postgres", "--s3", "--project", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert f"which {service_launch.TITLES[name]} is to use, is taken by another program" in said
    assert len(said.splitlines()) == 1
