"""Shards made in parts hold what one run would have packed, in its order, whoever made which part and however often."""

import json
import os
import subprocess
import sys
import tarfile
import threading

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet as pq

from components.cli import main
from components.data import ShardReader, parquet, parts, shard_folder, sharding
from components.data.held import only_run
from components.data.parts import part_folder, shard_parts
from components.data.sharding import Share
from components.errors import CotamError
from components.files import sha256_tree
from components.paths import ROOT
from tests.pictures import file_bytes, folder_of, noise

RULES = {"shard_images": 4, "seed": 3}


def members(folder):
    """Key and name of every picture, as they stand in the tars."""
    found = []
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            about = [member for member in tar if member.name.endswith(".json")]
            found += [(member.name, json.loads(tar.extractfile(member).read())["name"]) for member in about]
    return found


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Nineteen pictures, one of them damaged."""
    folder = folder_of(tmp_path_factory.mktemp("pictures") / "in", 18)
    (folder / "text.jpg").write_bytes(b"hello")
    return folder


@settings(max_examples=15, deadline=None)
@given(number=st.integers(1, 30))
def test_parts_in_a_row_are_what_one_run_packs(pictures, tmp_path_factory, number):
    folder = tmp_path_factory.mktemp("parts")
    whole = shard_folder(pictures, folder / "whole", **RULES)
    manifest = shard_parts(pictures, folder / "out", number, **RULES)
    assert manifest == json.loads((folder / "out/manifest.json").read_text()) and manifest["parts"] == number
    assert manifest["skipped"] == whole["skipped"] and manifest["images"] == 18
    inside = members(folder / "out")
    assert [name for _, name in inside] == [name for _, name in members(folder / "whole")]
    assert [key for key, _ in inside] == sorted({key for key, _ in inside})
    one, other = ShardReader(folder / "out"), ShardReader(folder / "whole")
    one.verify()
    assert all(one.image(i).tobytes() == other.image(i).tobytes() for i in range(18))
    assert sorted(path.name for path in folder.iterdir()) == ["out", "whole"]


def test_it_does_not_matter_who_makes_which_part(pictures, tmp_path):
    shard_parts(pictures, tmp_path / "a", 3, **RULES)
    command = [sys.executable, "-m", "components.cli", "shard", str(pictures), "-o", str(tmp_path / "b")]
    command += ["--seed", "3", "--shard-images", "4", "--no-track"]
    runs = [subprocess.Popen([*command, "--part", f"{part}/3"], cwd=ROOT) for part in (3, 1, 2)]
    assert [run.wait() for run in runs] == [0, 0, 0]
    assert not (tmp_path / "b").exists()
    subprocess.run([*command, "--parts", "3"], cwd=ROOT, check=True)
    assert sha256_tree(tmp_path / "a") == sha256_tree(tmp_path / "b")


def test_what_is_finished_is_not_made_again_and_what_was_killed_goes_on(pictures, tmp_path, monkeypatch):
    out, written, write = tmp_path / "out", [], sharding._write_tar

    def counted(path, first, taken):
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append(first)
        write(path, first, taken)

    monkeypatch.setattr(sharding, "_write_tar", counted)
    shard_parts(pictures, out, 2, 2, **RULES)
    assert shard_parts(pictures, out, 2, 2, **RULES)["plan"]["part"] == 2
    finished = len(written)
    with pytest.raises(KeyboardInterrupt):
        shard_parts(pictures, out, 2, **RULES)
    assert not out.exists()
    monkeypatch.setattr(sharding, "_write_tar", lambda *args: (written.append(args[1]), write(*args)))
    shard_parts(pictures, out, 2, **RULES)
    assert finished >= 1 and len(written) == len(set(written))
    monkeypatch.undo()
    shard_parts(pictures, tmp_path / "at once", 2, **RULES)
    assert sha256_tree(out) == sha256_tree(tmp_path / "at once")


def test_parts_of_another_source_are_made_again(tmp_path):
    pictures = folder_of(tmp_path / "in", 6)
    shard_parts(pictures, tmp_path / "out", 2, 1, **RULES)
    folder_of(pictures, 2, first=6)
    assert shard_parts(pictures, tmp_path / "out", 2, **RULES)["images"] == 8


def test_tables_are_unpacked_once_for_all_parts(tmp_path, monkeypatch):
    unpacked, unpack = [], parquet._unpack
    monkeypatch.setattr(parquet, "_unpack", lambda table, folder: (unpacked.append(table.name), unpack(table, folder)))
    (tmp_path / "in").mkdir()
    rows = {"image": [file_bytes(noise(number), "PNG") for number in range(20)]}
    pq.write_table(pa.table(rows), tmp_path / "in/train.parquet")
    shard_parts(tmp_path / "in", tmp_path / "out", 3, 2, **RULES)
    assert shard_parts(tmp_path / "in", tmp_path / "out", 3, **RULES)["images"] == 20
    assert unpacked == ["train.parquet"]
    (tmp_path / "in/cut.parquet").write_bytes((tmp_path / "in/train.parquet").read_bytes()[:-9])
    with pytest.raises(CotamError, match="damaged"):
        shard_parts(tmp_path / "in", tmp_path / "out", 3, 2, **RULES)
    (tmp_path / "in/cut.parquet").unlink()
    assert shard_parts(tmp_path / "in", tmp_path / "out", 3, **RULES)["images"] == 20
    assert unpacked == ["train.parquet"] * 2  # a failure keeps what it has unpacked
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_a_part_that_another_run_is_at_is_waited_for(pictures, tmp_path, capfd):
    out, done = tmp_path / "out", []
    with only_run(part_folder(out, Share(1, 2)).with_suffix(".tmp"), out):
        run = threading.Thread(target=lambda: done.append(shard_parts(pictures, out, 2, 1, **RULES)))
        run.start()
        shard_parts(pictures, out, 2, 2, **RULES)
        assert not done
    run.join()
    assert done and "Waiting for another run" in capfd.readouterr().err


def test_parts_of_other_settings_are_not_put_together(pictures, tmp_path, monkeypatch, capfd):
    out, make = tmp_path / "out", parts._make

    def meddled(name, source, listing, rules, target, share):
        made = make(name, source, listing, rules, target, share)
        if share.part == 3:
            monkeypatch.setattr(parts, "_make", make)
            shard_parts(pictures, out, 3, 2, shard_images=4, seed=4)  # somebody else, with another seed
        return made

    monkeypatch.setattr(parts, "_make", meddled)
    with pytest.raises(CotamError, match="Part 2 has been made meanwhile"):
        shard_parts(pictures, out, 3, **RULES)
    assert not out.exists()
    assert shard_parts(pictures, out, 3, **RULES)["images"] == 18
    assert "Part 2 was made of another source or with other settings" in capfd.readouterr().err


def test_a_file_that_is_removed_while_open_may_stay_as_on_nfs(pictures, tmp_path, monkeypatch):
    unlink, stayed = os.unlink, []

    def silly_rename(path, *args, **options):
        if os.fspath(path).endswith("lock"):
            stayed.append(f"{path}.nfs")
            os.rename(path, stayed[-1])
        else:
            unlink(path, *args, **options)

    monkeypatch.setattr(os, "unlink", silly_rename)
    shard_parts(pictures, tmp_path / "out", 2, 1, **RULES)
    shard_folder(pictures, tmp_path / "whole", **RULES)
    assert stayed and len(ShardReader(tmp_path / "whole")) == 18


def test_pictures_that_all_are_damaged_are_one_sentence(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(b"nothing")
    with pytest.raises(CotamError, match="None of the 3 images"):
        shard_parts(folder, tmp_path / "out", 2)
    assert not (tmp_path / "out").exists()


def test_older_shards_are_replaced_and_anything_else_is_left_alone(pictures, tmp_path):
    shard_folder(folder_of(tmp_path / "in", 3), tmp_path / "out")
    shard_parts(pictures, tmp_path / "out", 2, **RULES)
    assert len(ShardReader(tmp_path / "out")) == 18
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    with pytest.raises(CotamError, match="does not hold shards"):
        shard_parts(pictures, tmp_path / "mine", 2, **RULES)


@pytest.mark.parametrize("part", ["4/3", "0/3", "3", "a/b"])
def test_a_part_that_there_is_not_is_a_usage_error(part, capsys):
    with pytest.raises(SystemExit) as error:
        main(["shard", "in", "-o", "out", "--part", part])
    assert error.value.code == 2 and "is no part" in capsys.readouterr().err


def test_the_command_says_what_comes_next(pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["shard", str(pictures), "-o", "out", "--part", "1/2", "--no-track"]) == 0
    said = capsys.readouterr().out
    assert "out, part 1 of 2: " in said and f"`cotam shard {pictures} -o out --parts 2`" in said
    assert main(["shard", str(pictures), "-o", "out", "--part", "2/2", "--no-track", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["part"], report["parts"]) == (2, 2) and len(ShardReader(report["folder"])) == report["images"]
    assert main(["shard", str(pictures), "-o", "out", "--link", "--parts", "2"]) == 1
    assert "--parts says how to make shards" in capsys.readouterr().err
