"""Registered codecs and adapters: same files, same version; the champion moves to the better; anyone can load it."""

import pytest
import yaml

from components import cli, paths
from components.errors import CotamError
from components.files import sha256_tree
from components.tracking.lineage import trace
from components.tracking.models import download
from components.tracking.promotion import CHAMPION, roll_back
from components.tracking.registry import Candidate, register
from components.weights import resolve
from flows import services


@pytest.fixture
def server(running, monkeypatch, tmp_path):
    """The address of an MLflow server, which also serves `models:/`; nothing has been downloaded yet."""
    services.up(running)
    uri = services.urls(running)["mlflow"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr(paths, "STATE", tmp_path / "state")
    return uri


def model(folder, content):
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(content)
    return folder


def champion(uri, name):
    from mlflow import MlflowClient

    return MlflowClient(uri).get_model_version_by_alias(name, CHAMPION)


def test_versions_and_their_champion(server, tmp_path):
    name = "cotam-adapter-of-a-test"
    first = Candidate(name, model(tmp_path / "first", b"1"), -20.0, {"mllm": "micro-llava"})
    worse = Candidate(name, model(tmp_path / "worse", b"2"), -10.0, high=-8.0)
    unknown = Candidate(name, model(tmp_path / "unknown", b"3"), None)
    better = Candidate(name, model(tmp_path / "better", b"4"), -30.0, high=-25.0)

    done = [register(one, server) for one in (first, first, worse, unknown, better, better, first)]
    assert [int(one.version) for one in done] == [1, 1, 2, 3, 4, 4, 1]
    assert [one.new for one in done] == [True, False, True, True, True, False, False]
    assert [one.champion for one in done] == [True, True, False, False, True, True, False]
    held = champion(server, name)
    assert held.version == "4"
    assert held.tags["bd_rate"] == "-30.0" and held.tags["content_hash"] == sha256_tree(better.folder)


def test_a_champion_is_rolled_back_and_stays_so(server, tmp_path, capsys):
    name = "cotam-adapter-to-roll-back"
    first = Candidate(name, model(tmp_path / "first", b"1"), -20.0)
    better = Candidate(name, model(tmp_path / "better", b"2"), -30.0, high=-25.0)
    with pytest.raises(CotamError, match="did not roll back"):
        roll_back(server, name, "there is no such model")
    register(first, server)
    with pytest.raises(CotamError, match="had no champion before version 1; name one with --to"):
        roll_back(server, name, "none before")
    register(better, server)
    assert cli.main(["rollback", name, "--why", "blind to digits"]) == 0
    assert capsys.readouterr().out == f"{name}: champion was version 2, is version 1\n"
    again = register(better, server)
    assert not again.champion and again.reason == "it was rolled back (blind to digits)"
    assert champion(server, name).version == "1"
    assert roll_back(server, name, "a mistake", to="2") == ("1", "2")
    assert champion(server, name).version == "2" and register(better, server).champion


def test_a_version_is_followed_back_to_its_shards_and_revision(server, running, capsys):
    uri = "models:/cotam-adapter-elic-micro-llava@champion"
    assert cli.main(["lineage", uri]) == 0
    said = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    found = trace(uri, server)
    assert said["revision"].split(",")[0] == found["revision"] == champion(server, found["model"]).tags["revision"]
    lock = yaml.safe_load((running / "dvc.lock").read_text())["stages"]
    [scenes] = lock["render"]["outs"]
    assert found["data"] == {"data/scenes.txt": scenes["md5"]} and said["data/scenes.txt"] == scenes["md5"]
    assert found["run"]["status"] == "FINISHED" and found["settings"]["scenes.images"]
    assert found["version"] in said["model"] and "champion" in said["model"]
    with pytest.raises(CotamError, match="could not be had"):
        trace("models:/cotam-adapter-elic-micro-llava/99", server)


def test_the_champion_is_loaded_by_name(server, tmp_path):
    name = "cotam-codec-of-a-test"
    folder = model(tmp_path / "codec", b"weights")
    register(Candidate(name, folder, 1.0), server)
    assert sha256_tree(resolve(f"models:/{name}@{CHAMPION}")) == sha256_tree(folder)
    assert resolve(f"models:/{name}/1") == resolve(f"models:/{name}@{CHAMPION}")


def test_the_same_version_of_another_server_is_not_mistaken(server, tmp_path):
    name = "cotam-codec-of-two-servers"
    folder = model(tmp_path / "codec", b"weights")
    register(Candidate(name, folder, 1.0), server)
    kept = paths.STATE / "models" / name / "1"
    kept.mkdir(parents=True)
    (kept / "model.safetensors").write_bytes(b"of another server")
    assert sha256_tree(download(f"models:/{name}@{CHAMPION}")) == sha256_tree(folder)


def test_what_a_demo_has_registered(server, running):
    codec, adapter = (champion(server, name) for name in ("cotam-codec-elic", "cotam-adapter-elic-micro-llava"))
    assert codec.tags["content_hash"] == sha256_tree(running.parent / "codec")
    assert adapter.tags["codec_hash"] == codec.tags["content_hash"]
    assert adapter.tags["bd_rate"] == "-31.0" and adapter.tags["bd_rate.pope"] == "-25.0"
    assert len(adapter.tags["revision"]) == 40
    found = resolve("models:/cotam-adapter-elic-micro-llava@champion")
    assert {path.name for path in found.iterdir()} == {"config.json", "model.safetensors"}
    assert sha256_tree(found) == adapter.tags["content_hash"]


@pytest.mark.parametrize("uri", ["models:/cotam-codec-elic@nobody", "models:/no-such-model/1"])
def test_what_is_not_registered_is_one_sentence(server, uri):
    with pytest.raises(CotamError, match="could not be had from MLflow at http://127"):
        resolve(uri)


def test_a_name_without_version_is_one_sentence(server):
    with pytest.raises(CotamError, match=r"names no version; write models:/NAME@champion"):
        resolve("models:/cotam-codec-elic")
