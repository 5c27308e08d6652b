"""Files are whole or absent, whatever happens while they are written."""

import json
import os

import pytest

from components.errors import CotamError
from components.files import (
    atomic_dir,
    atomic_file,
    atomic_write,
    others_by_use,
    read_json,
    sha256,
    sha256_tree,
    write_json,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    atomic_write(path, "before")
    with pytest.raises(RuntimeError), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "before"
    assert names(tmp_path) == ["a.txt"]


def test_a_disk_without_room_leaves_nothing_half_written(tmp_path, full_disk_write):
    with pytest.raises(OSError, match="No space left"):
        full_disk_write(tmp_path / "a.bin")
    assert names(tmp_path) == []


@pytest.fixture
def full_disk_write():
    def write(path):
        with atomic_file(path) as temporary:
            temporary.symlink_to("/dev/full")
            with temporary.open("wb") as file:
                file.write(b"x" * 100_000)

    return write


def test_a_folder_replaces_the_old_one_as_a_whole(tmp_path):
    folder = tmp_path / "out"
    for content in ("one", "two"):
        with atomic_dir(folder) as temporary:
            (temporary / content).mkdir()
            (temporary / content / "file").write_text(content)
    assert names(folder) == ["two"]
    with pytest.raises(RuntimeError), atomic_dir(folder) as temporary:
        (temporary / "three").touch()
        raise RuntimeError
    assert names(folder) == ["two"]
    assert names(tmp_path) == ["out"]


def test_json_is_the_same_bytes_for_the_same_value(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": [0.1]})
    write_json(tmp_path / "b.json", {"a": [0.1], "b": 1})
    assert sha256(tmp_path / "a.json") == sha256(tmp_path / "b.json")
    assert read_json(tmp_path / "a.json") == {"a": [0.1], "b": 1}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "c.json", float("nan"))
    assert not (tmp_path / "c.json").exists()


def test_json_that_is_missing_or_damaged_is_said(tmp_path):
    with pytest.raises(CotamError, match="does not exist"):
        read_json(tmp_path / "a.json")
    for content in (b'{"a": ', b"\xff\xfe"):
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(CotamError, match="not valid JSON"):
            read_json(tmp_path / "a.json")


def test_a_trees_hash_sees_names_and_bytes_and_nothing_else(tmp_path):
    def tree(root, files):
        for name, content in files:
            (tmp_path / root / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / root / name).write_text(content)
        return sha256_tree(tmp_path / root)

    files = [("a", "1"), ("b/c", "2")]
    one = tree("one", files)
    assert one == tree("two", files[::-1])
    assert one != tree("three", [("a", "1"), ("b/d", "2")])
    assert one != tree("four", [("a", "1"), ("b/c", json.dumps(2) + "!")])


def test_what_lies_beside_a_folder_comes_by_its_last_use(tmp_path):
    assert others_by_use(tmp_path / "none/such") == []
    for name, used in (("old", 1), ("mine", 4), ("newest", 3), ("middle", 2)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (used, used))
    (tmp_path / "a file").touch()
    assert [other.name for other in others_by_use(tmp_path / "mine")] == ["newest", "middle", "old"]
