"""A store that fails one request in ten: 500, 503, connections cut before or within an answer. Nothing is lost."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import skimage.data

from components.files import sha256_tree
from components.paths import ROOT
from flows import s3_store, services
from tests import pipeline_project
from tests.faulty_proxy import faulty_proxy

SHARE = 0.1


@pytest.fixture
def proxy(stores, s3, monkeypatch):
    """The faults; everyone's AWS_ENDPOINT_URL is the faulty proxy."""
    with faulty_proxy(services.status(stores[0])["s3"]["url"], SHARE) as (url, faulty):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        yield faulty


def shard(out):
    command = [sys.executable, "-m", "components.cli", "shard", f"s3://{s3_store.BUCKET}/many", "-o", str(out)]
    return subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True)


def test_shards_from_a_faulty_store_are_those_of_a_sound_one(s3, proxy, tmp_path, monkeypatch, injected):
    picture = (Path(skimage.data.__path__[0]) / "coffee.png").read_bytes()
    for number in range(40):
        s3.put_object(Bucket=s3_store.BUCKET, Key=f"many/{number:03d}.png", Body=picture)
    done = shard(tmp_path / "faulty")
    assert done.returncode == 0, done.stderr
    assert proxy.faults() >= 2, proxy.counts
    injected("requests", proxy.faults())
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.meta.endpoint_url)
    assert shard(tmp_path / "sound").returncode == 0
    assert sha256_tree(tmp_path / "faulty") == sha256_tree(tmp_path / "sound")


@pytest.mark.soak
def test_dvc_over_a_faulty_store_loses_nothing(proxy, tmp_path, injected):
    project = pipeline_project.make(tmp_path / "made")
    many = project / "many"
    many.mkdir()
    for number in range(150):
        (many / f"{number}").write_bytes(os.urandom(20_000))
    pipeline_project.dvc(project, "add", "many")
    pipeline_project.dvc(project, "remote", "add", "-d", "store", f"s3://{s3_store.BUCKET}/faulty")
    pipeline_project.dvc(project, "push")
    pipeline_project.git(project, "add", "-A")
    pipeline_project.git(project, "commit", "-qm", "many")
    other = pipeline_project.clone(project, tmp_path / "other")
    pipeline_project.dvc(other, "pull", "many.dvc")
    assert sha256_tree(other / "many") == sha256_tree(many)
    assert proxy.faults() >= 10, proxy.counts
    injected("requests", proxy.faults())
