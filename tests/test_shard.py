"""Shards are the same bytes everywhere, appear whole or not at all, and go on after a kill."""

import itertools
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tarfile
import threading
import time
from contextlib import contextmanager

import pytest

from components.cli import main
from components.data import packing, shard_folder
from components.data.sharding import _rank
from components.errors import CotamError
from components.files import sha256, sha256_tree
from components.paths import ROOT
from tests.pictures import file_bytes, folder_of, halves, noise


def nothing_left(folder, *expected):
    assert sorted(path.name for path in folder.iterdir()) == sorted(expected)


def test_a_manifest_says_what_is_there(tmp_path):
    manifest = shard_folder(folder_of(tmp_path / "in", 7), tmp_path / "out", shard_images=3, seed=5)
    assert manifest == json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["images"] == 7
    assert [shard["images"] for shard in manifest["shards"]] == [3, 3, 1]
    for entry in (*manifest["shards"], manifest["index"]):
        path = tmp_path / "out" / entry["file"]
        assert (sha256(path), path.stat().st_size) == (entry["sha256"], entry["bytes"])
    nothing_left(tmp_path, "in", "out")
    nothing_left(tmp_path / "out", "00000.tar", "00001.tar", "00002.tar", "index.npy", "manifest.json")


def test_the_same_pictures_are_the_same_bytes(tmp_path):
    shard_folder(folder_of(tmp_path / "in", 6), tmp_path / "a", shard_images=4, name="photos")
    other = tmp_path / "elsewhere/in"
    folder_of(other, 3, first=3)  # written in another order, at another time
    folder_of(other, 3)
    os.utime(other / "0.png", (1, 1))
    shard_folder(other, tmp_path / "b", shard_images=4, name="photos")
    assert sha256_tree(tmp_path / "a") == sha256_tree(tmp_path / "b")
    shard_folder(other, tmp_path / "c", shard_images=4, name="photos", seed=1)
    assert sha256_tree(tmp_path / "a") != sha256_tree(tmp_path / "c")


def test_awkward_pictures_are_taken_or_named_with_a_reason(tmp_path):
    folder = tmp_path / "in"
    (folder / "deep/er").mkdir(parents=True)
    exif = halves().getexif()
    exif[0x0112] = 6
    taken = {
        "plain.jpg": file_bytes(noise(1), "JPEG"),
        "copy of plain.jpg": file_bytes(noise(1), "JPEG"),
        "palette.gif": file_bytes(noise(2), "GIF"),
        "cmyk.jpg": file_bytes(noise(3).convert("CMYK"), "JPEG"),
        "turned.jpg": file_bytes(halves(), "JPEG", exif=exif),
        "deep/er/bild-äöü.webp": file_bytes(noise(4), "WEBP"),
        "no_suffix": file_bytes(noise(5), "PNG"),
    }
    reasons = {
        "text.jpg": (b"hello", "is not an image"),
        "tiny.png": (file_bytes(noise(6, 31, 64), "PNG"), "is 31 x 64 pixels, smaller than the minimum side of 32"),
        "huge.png": (file_bytes(noise(7, 200, 100), "PNG"), "has more than 10000 pixels"),
        "cut.jpg": (file_bytes(noise(8), "JPEG")[:-400], "is damaged"),
        "empty.png": (b"", "is empty"),
    }
    for name, content in {**taken, **{name: content for name, (content, _) in reasons.items()}}.items():
        (folder / name).write_bytes(content)
    (folder / "nowhere.png").symlink_to(folder / "gone.png")
    (folder / ".hidden.png").write_bytes(taken["plain.jpg"])
    (folder / "notes.txt").write_text("not a picture")
    os.mkfifo(folder / "pipe.png")

    manifest = shard_folder(folder, tmp_path / "out", maximum_pixels=10_000)
    assert manifest["ignored"] == {".txt": 1, "not a file": 1}
    skipped = {skip["name"]: skip["reason"] for skip in manifest["skipped"]}
    assert skipped.pop("nowhere.png") == "does not exist"
    assert set(skipped) == set(reasons)
    for name, (_, reason) in reasons.items():
        assert skipped[name].startswith(reason)

    stored = {}
    with tarfile.open(tmp_path / "out/00000.tar") as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}
        assert all((member.mtime, member.uid, member.uname) == (0, 0, "") for member in tar)
    for name in members:
        if name.endswith(".json"):
            key = name.removesuffix(".json")
            image = next(other for other in members if other.startswith(key) and other != name)
            stored[json.loads(members[name])["name"]] = (image.rpartition(".")[2], members[image])
    assert set(stored) == set(taken)
    assert stored["plain.jpg"] == ("jpg", taken["plain.jpg"])  # not a generation lost
    assert {name for name, (kind, _) in stored.items() if kind == "jpg"} == {"plain.jpg", "copy of plain.jpg"}
    assert stored["no_suffix"] == ("png", taken["no_suffix"])


def test_of_large_pictures_one_is_decoded_at_a_time(tmp_path, monkeypatch):
    at_once, most, decode, counting = [0, 0], [0, 0], packing.decode, threading.Lock()

    def counted(content, maximum_pixels):
        kind = int(packing._pixels(content) > packing.LARGE)
        with counting:
            at_once[kind] += 1
            most[kind] = max(most[kind], at_once[kind])
        time.sleep(0.05)  # long enough for every thread to come here
        try:
            return decode(content, maximum_pixels)
        finally:
            with counting:
                at_once[kind] -= 1

    monkeypatch.setattr(packing, "LARGE", 64 * 64)
    monkeypatch.setattr(packing, "decode", counted)
    folder_of(tmp_path / "in", 8)
    for number in range(4):
        (tmp_path / f"in/large {number}.png").write_bytes(file_bytes(noise(number, 128), "PNG"))
    assert shard_folder(tmp_path / "in", tmp_path / "out")["images"] == 12
    assert most[1] == 1 < most[0]


def test_a_killed_run_goes_on_after_its_last_shard(tmp_path, injected):
    source = folder_of(tmp_path / "in", 10)
    shard_folder(source, tmp_path / "undisturbed", shard_images=3)
    out = tmp_path / "out"
    script = (
        "import os, signal, sys\n"
        "from components.data import sharding\n"
        "write = sharding._write_tar\n"
        "def die_in_the_third(path, first, pictures):\n"
        "    write(path, first, pictures)\n"
        "    if first == 6: os.kill(os.getpid(), signal.SIGKILL)\n"
        "sharding._write_tar = die_in_the_third\n"
        "sharding.shard_folder(sys.argv[1], sys.argv[2], shard_images=3)\n"
    )
    died = subprocess.run([sys.executable, "-c", script, source, out], cwd=ROOT, check=False)
    assert died.returncode == -signal.SIGKILL
    injected("sharding")
    assert not out.exists()
    half = tmp_path / ".out.shards.tmp/shards"
    finished = {path.name: path.stat() for path in half.glob("*.tar") if not path.name.startswith(".")}
    assert sorted(finished) == ["00000.tar", "00001.tar"]

    shard_folder(source, out, shard_images=3)
    assert sha256_tree(out) == sha256_tree(tmp_path / "undisturbed")
    for name, before in finished.items():
        after = (out / name).stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)  # not written again
    nothing_left(tmp_path, "in", "out", "undisturbed")


@contextmanager
def full_disk(size):
    """Let every write beyond `size` bytes of a file fail, as on a full disk (with EFBIG instead of ENOSPC)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def folder_with_large_last(path):
    """Six small pictures, and one of 270 kB that comes last in the order of seed 0."""
    folder_of(path, 6)
    highest = max(_rank(0, file.relative_to(path).as_posix()) for file in path.rglob("*.png"))
    name = next(name for name in (f"large-{n}.png" for n in itertools.count()) if _rank(0, name) > highest)
    noise(99, 300, 300).save(path / name)
    return path


def test_a_full_disk_leaves_nothing_half_written_and_can_be_gone_on_from(tmp_path, capsys, injected):
    source = folder_with_large_last(tmp_path / "in")
    with full_disk(150_000):
        assert main(["shard", str(source), "-o", str(tmp_path / "out"), "--shard-images", "3"]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert errors[-1].startswith("cotam: ") and "free some room" in errors[-1]
    assert not (tmp_path / "out").exists()
    injected("full")
    finished = tmp_path / ".out.shards.tmp/shards/00000.tar"
    before = finished.stat().st_ino
    shard_folder(source, tmp_path / "out", shard_images=3)
    assert (tmp_path / "out/00000.tar").stat().st_ino == before
    nothing_left(tmp_path, "in", "out")


def test_a_changed_source_is_not_mixed_with_unfinished_shards(tmp_path, injected):
    source = folder_with_large_last(tmp_path / "in")
    injected("full")
    with full_disk(150_000), pytest.raises(CotamError):
        shard_folder(source, tmp_path / "out", shard_images=3)
    folder_of(source, 2, first=6)
    shard_folder(source, tmp_path / "out", shard_images=3, name="x")
    shard_folder(source, tmp_path / "afresh", shard_images=3, name="x")
    assert sha256_tree(tmp_path / "out") == sha256_tree(tmp_path / "afresh")


HOLD = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_runs_do_not_write_one_folder(tmp_path):
    work, source = tmp_path / ".out.shards.tmp", folder_of(tmp_path / "in", 2)
    work.mkdir()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLD, str(work / "lock")], **pipes) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(CotamError, match="Another run is writing"):
            shard_folder(source, tmp_path / "out")
        other.stdin.close()
    assert shard_folder(source, tmp_path / "out")["images"] == 2


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("missing", "does not exist; give a folder of images"),
        ("file.png", "is a file; give the folder that holds it"),
        ("empty", "holds no images; give a folder of images"),
        ("texts", r"holds no images \(only 1 .md, 2 .txt\); give"),
        ("unusable", r"None of the 2 images in .*unusable can be used; the first: a.png is empty"),
        ("ftp://host/x", "is neither a folder nor an s3:// address"),
        ("s3://", "names no bucket"),
    ],
)
def test_a_source_that_cannot_be_sharded_is_one_sentence(tmp_path, capsys, monkeypatch, source, sentence):
    for name in ("empty", "texts", "unusable"):
        (tmp_path / name).mkdir()
    for name in ("texts/a.txt", "texts/b.txt", "texts/c.md", "unusable/a.png", "unusable/b.png", "file.png"):
        (tmp_path / name).touch()
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    assert main(["shard", source, "-o", "out"]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("Sharding: ")]
    assert len(errors) == 1
    assert re.search(sentence, errors[0])
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    source = folder_of(tmp_path / "in", 2)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "letter.txt").write_text("dear reader")
    for out in (precious, source, tmp_path):
        with pytest.raises(CotamError, match=r"choose another folder|write the shards to another folder"):
            shard_folder(source, out)
    assert (precious / "letter.txt").read_text() == "dear reader"


def test_older_shards_are_replaced_and_not_taken_for_a_source(tmp_path):
    source = folder_of(tmp_path / "in", 3)
    out = source / "shards"
    assert shard_folder(source, out)["images"] == 3
    folder_of(source, 2, first=3)
    manifest = shard_folder(source, out)
    assert (manifest["images"], manifest["ignored"]) == (5, {})


def test_the_command_reports(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path / "in", 3)
    (tmp_path / "in/broken.jpg").write_text("x")
    assert main(["shard", "in", "-o", "out", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["images"], report["shards"], report["source"], report["tracked"]) == (3, 1, "in", None)
    assert [skip["name"] for skip in report["skipped"]] == ["broken.jpg"]
    assert main(["shard", "in", "-o", "out", "--no-track"]) == 0
    text = capsys.readouterr().out
    assert "out: 3 images, 1 shard," in text
    assert "skipped broken.jpg: it is not an image" in text


def test_a_wrong_number_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["shard", "in", "-o", "out", "--shard-images", "0"])
    assert stopped.value.code == 2
    assert "0 is less than 1" in capsys.readouterr().err
