"""The pipeline's step gives training its shards, and DVC tracks the ones that a user made."""

import os
import subprocess
import sys

import pytest
import yaml

from components import config
from components.cli import main
from components.data import ShardReader, shard_folder
from components.data.step_shard import run
from components.errors import CotamError
from components.files import sha256_tree
from components.paths import Paths
from components.step_inputs import Params, StepInputs
from flows.track_data import track
from tests.pictures import file_bytes, folder_of, noise
from tests.s3 import s3_server


def inputs(root, source):
    settings = config.load(overrides={"data.source": source, "data.shard_images": "3"}).model_dump(mode="json")
    for name in ("out", "work"):
        (root / name).mkdir(exist_ok=True)
    params = Params({key: settings[key] for key in ("data", "seed")})
    return StepInputs(params=params, work=root / "work", out=root / "out", paths=Paths(root))


def test_a_folder_of_the_checkout_is_sharded_and_named_as_in_the_settings(tmp_path):
    folder_of(tmp_path / "data/scenes", 4)
    (tmp_path / "data/scenes/notes.txt").write_text("none")
    run(inputs(tmp_path, "data/scenes"))
    reader = ShardReader(tmp_path / "out")
    assert len(reader) == 4
    assert (reader.manifest["source"], reader.manifest["seed"]) == ("data/scenes", 7)
    assert [shard["images"] for shard in reader.manifest["shards"]] == [3, 1]
    assert os.listdir(tmp_path / "work") == []


def test_shards_of_the_user_are_taken_as_they_are(tmp_path):
    shard_folder(folder_of(tmp_path / "photos", 5), tmp_path / "data/mine", shard_images=2)
    (tmp_path / "data/mine/.gitignore").touch()  # not part of the shards
    (tmp_path / "data/linked").symlink_to("mine")
    run(inputs(tmp_path, "data/linked"))
    (tmp_path / "data/mine/.gitignore").unlink()
    assert sha256_tree(tmp_path / "out") == sha256_tree(tmp_path / "data/mine")


def test_damaged_shards_are_refused_before_training(tmp_path):
    shard_folder(folder_of(tmp_path / "photos", 2), tmp_path / "mine")
    content = bytearray((tmp_path / "mine/00000.tar").read_bytes())
    content[1000] ^= 1
    (tmp_path / "mine/00000.tar").write_bytes(content)
    with pytest.raises(CotamError, match=r"00000.tar is not what was written"):
        run(inputs(tmp_path, "mine"))


def test_an_address_is_to_be_sharded_first(tmp_path):
    with pytest.raises(CotamError, match="run `cotam shard s3://photos/x -o data/my-images`"):
        run(inputs(tmp_path, "s3://photos/x"))


def dvc(checkout, *arguments):
    """The real DVC, in a process of its own, as its logging does not survive pytest's capture."""
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True).stdout.strip()


def test_dvc_tracks_what_the_command_wrote(tmp_path, monkeypatch, capsys):
    dvc(tmp_path, "init", "--no-scm")
    folder_of(tmp_path / "photos", 3)
    monkeypatch.chdir(tmp_path)
    assert main(["shard", "photos", "-o", "data/mine"]) == 0
    assert "tracked with DVC: commit" in capsys.readouterr().out
    tracked = yaml.safe_load((tmp_path / "data/mine.dvc").read_text())["outs"][0]
    assert (tracked["path"], tracked["nfiles"]) == ("mine", 3)  # one shard, index.npy, manifest.json
    assert dvc(tmp_path, "status", "--json") == "{}"

    (tmp_path / ".dvc/config").write_text("[broken\n")
    assert main(["shard", "photos", "-o", "data/mine"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("cotam: The shards are in data/mine, but DVC does not track them: ")
    assert len(ShardReader(tmp_path / "data/mine")) == 3


def test_an_s3_source_is_imported_without_a_download(tmp_path, monkeypatch):
    with s3_server() as client:
        client.create_bucket(Bucket="photos")
        client.put_object(Bucket="photos", Key="x/1.png", Body=file_bytes(noise(1), "PNG"))
        dvc(tmp_path, "init", "--no-scm")
        shard_folder("s3://photos/x", tmp_path / "mine")
        assert track(tmp_path / "mine", "s3://photos/x") == [tmp_path / "mine.dvc", tmp_path / "mine.source.dvc"]
        assert not (tmp_path / "mine.source").exists()
        origin = yaml.safe_load((tmp_path / "mine.source.dvc").read_text())["deps"][0]
        assert (origin["path"], origin["nfiles"]) == ("s3://photos/x", 1)
        client.put_object(Bucket="photos", Key="x/2.png", Body=file_bytes(noise(2), "PNG"))
        dvc(tmp_path, "update", "--no-download", "mine.source.dvc")
        assert yaml.safe_load((tmp_path / "mine.source.dvc").read_text())["deps"][0]["nfiles"] == 2
