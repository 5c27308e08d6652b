"""`cotam encode` and `decode` of folders and of standard streams, as they are typed."""

import io
import json
import os
import pty
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from components import config
from components.cli import main
from components.codec import Codec
from components.codec.container import unpack
from components.data.images import open_image
from components.paths import ROOT
from tests.pictures import file_bytes, noise
from tests.test_codec import tiny_codec_folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return str(tiny_codec_folder(tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def photos(tmp_path):
    """Pictures of several kinds and sizes, one of them damaged, and a file that is none."""
    folder = tmp_path / "photos"
    (folder / "deep/er").mkdir(parents=True)
    noise(0, 40, 30).save(folder / "a.png")
    noise(1, 33, 17).save(folder / "deep/b.jpg")
    noise(2, 16, 16).convert("L").save(folder / "deep/er/ü.webp")
    (folder / "broken.png").write_bytes(file_bytes(noise(3), "PNG")[:100])
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_bytes(b"not looked at")
    return folder


def files(folder):
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def encode(photos, out, tiny, *more):
    return main(["encode", str(photos), "-o", str(out), "--plain", "--codec", tiny, *more])


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_folder_goes_through_streams_and_back(workers, photos, tiny, tmp_path, capsys):
    def run(*command):
        command = (*command, "--codec", tiny, "--workers", workers)
        if workers == "1" or command[0] == "decode":
            return (main([*command[:-1], "1"]), *capsys.readouterr())
        done = pipe(*command)  # not forked from here, where torch has computed
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    streams, back = tmp_path / "streams", tmp_path / "back"
    code, out, err = run("encode", str(photos), "-o", str(streams), "--plain")
    assert code == 1
    assert err.splitlines()[-1].startswith(f"cotam: {photos}/broken.png is damaged")
    assert out.startswith(f"{streams}: 3 files written with ")
    assert out.endswith("1 failed; left out: 1 .txt\n")
    assert set(files(streams)) == {"a.cotam", "deep/b.cotam", "deep/er/ü.cotam"}
    codec = Codec.from_pretrained(tiny)
    for name, path in files(streams).items():
        [original] = [path for other, path in files(photos).items() if other.rsplit(".")[0] == name.rsplit(".")[0]]
        assert path.read_bytes() == codec.encode([open_image(original)], 4)[0]

    (streams / "deep/cut.cotam").write_bytes((streams / "a.cotam").read_bytes()[:30])
    code, out, err = run("decode", str(streams), "-o", str(back), "--json")
    assert code == 1
    report = json.loads(out)
    assert [one["file"] for one in report["files"]] == [
        str(back / name) for name in ("a.png", "deep/b.png", "deep/er/ü.png")
    ]
    assert [one["source"] for one in report["failed"]] == [str(streams / "deep/cut.cotam")]
    assert "The stream is" in err
    for name, path in files(streams).items():
        if "cut" not in name:
            decoded = codec.decode([path.read_bytes()])[0].image
            assert (np.asarray(Image.open(back / name.replace(".cotam", ".png"))) == decoded).all()


def test_what_is_up_to_date_is_left_and_what_is_not_is_made_again(photos, tiny, tmp_path, capsys):
    streams = tmp_path / "streams"
    (photos / "broken.png").unlink()

    def written(*more):
        assert encode(photos, streams, tiny, "--workers", "1", "--json", *more) == 0
        report = json.loads(capsys.readouterr().out)
        assert len(report["files"]) + report["up_to_date"] == 3
        return [os.path.relpath(one["file"], streams) for one in report["files"]]

    assert len(written()) == 3
    assert written() == []
    (streams / "deep/b.cotam").unlink()  # as after a kill
    (streams / "a.cotam").write_bytes(b"damaged")
    assert written() == ["a.cotam", "deep/b.cotam"]
    old = (streams / "a.cotam").stat().st_mtime - 100
    os.utime(streams / "a.cotam", (old - 1, old - 1))
    os.utime(photos / "a.png", (old, old))
    assert written() == ["a.cotam"]
    assert len(written("--overwrite")) == 3
    assert len(written("--quality", "6")) == 3
    assert unpack((streams / "a.cotam").read_bytes())[0].quality == 6


def test_without_guidance_in_the_settings_streams_are_up_to_date_too(photos, tiny, tmp_path, capsys, monkeypatch):
    chosen = config.load()
    chosen = chosen.model_copy(update={"guidance": chosen.guidance.model_copy(update={"levels": 1})})
    monkeypatch.setattr(config, "load", lambda: chosen)
    (photos / "broken.png").unlink()
    arguments = ["encode", str(photos), "-o", str(tmp_path / "streams"), "--codec", tiny, "--workers", "1", "--json"]
    for done in (0, 3):
        assert main(arguments) == 0
        assert json.loads(capsys.readouterr().out)["up_to_date"] == done


def test_decoding_into_a_folder_does_not_replace_older_pictures(photos, tiny, tmp_path, capsys):
    (photos / "broken.png").unlink()
    encode(photos, photos, tiny, "--workers", "1")
    before = (photos / "a.png").read_bytes()
    os.utime(photos / "a.png", (1, 1))
    capsys.readouterr()
    command = ["decode", str(photos), "-o", str(photos), "--codec", tiny, "--workers", "1"]
    assert main(command) == 1
    assert "a.png is older than" in capsys.readouterr().err
    assert (photos / "a.png").read_bytes() == before
    assert main([*command, "--overwrite"]) == 0
    assert (photos / "a.png").read_bytes() != before


def test_what_cannot_be_done_with_a_folder(photos, tiny, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    noise(4).save(photos / "deep/b.PNG")
    before = files(tmp_path)
    mistakes = {
        "b.PNG and": ["encode", str(photos), "-o", str(tmp_path / "out")],
        "would both become": ["encode", str(photos), "-o", str(tmp_path / "out")],
        "empty holds no file to take": ["decode", str(tmp_path / "empty"), "-o", str(tmp_path / "out")],
        "name the folder to write into with -o": ["encode", str(photos)],
        "file is none": ["encode", str(photos), "-o", str(tmp_path / "file")],
        "a.png is none": ["decode", str(photos), "-o", str(tmp_path / "a.png")],
        "- is none": ["encode", str(photos), "-o", "-"],
    }
    for words, command in mistakes.items():
        assert main([*command, "--codec", tiny]) == 1, words
        out, err = capsys.readouterr()
        assert out == ""
        assert words in err
        assert err.count("\n") == 1
    (photos / "deep/b.PNG").unlink()
    assert main(["encode", str(photos), "-o", str(tmp_path / "out"), "--codec", "nowhere"]) == 1
    assert "There is no model at nowhere" in capsys.readouterr().err
    assert set(files(tmp_path)) == set(before) - {"photos/deep/b.PNG"}


def test_a_killed_run_goes_on(photos, tiny, tmp_path):
    """Killed when its first file is there; what the second run writes is what one run would have written."""
    (photos / "broken.png").unlink()
    for number in range(12):
        noise(number, 400, 300).save(photos / f"deep/{number}.png")
    streams, whole = tmp_path / "streams", tmp_path / "whole"
    command = [sys.executable, "-m", "components.cli", "encode", str(photos), "-o", str(streams), "--plain"]
    command += ["--codec", tiny, "--workers", "2"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(streams.rglob("[!.]*.cotam")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for path in streams.rglob("[!.]*.cotam"):
        unpack(path.read_bytes())
    assert encode(photos, streams, tiny, "--workers", "1") == 0
    assert encode(photos, whole, tiny, "--workers", "1") == 0
    made = {name: path for name, path in files(streams).items() if not path.name.startswith(".")}
    assert set(made) == set(files(whole))
    assert all(path.read_bytes() == (whole / name).read_bytes() for name, path in made.items())


def pipe(*arguments, content=b"", **options):
    command = [sys.executable, "-m", "components.cli", *arguments]
    if "stdin" not in options:
        options["input"] = content
    return subprocess.run(
        command, cwd=ROOT, stderr=subprocess.PIPE, **{"stdout": subprocess.PIPE} | options, check=False
    )


def test_standard_streams(tiny, tmp_path, monkeypatch, capsysbinary):
    def through(content, *command):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        assert main([*command, "--codec", tiny]) == 0
        return capsysbinary.readouterr()

    codec = Codec.from_pretrained(tiny)
    stream, said = through(file_bytes(noise(5, 50, 20), "PNG"), "encode", "-", "-o", "-", "--plain")
    assert stream == codec.encode([noise(5, 50, 20)], 4)[0]
    assert said.startswith(b"-: ")
    back, said = through(stream, "decode", "-", "-o", "-", "--json")
    image = Image.open(io.BytesIO(back))
    assert image.format == "PNG"
    assert (np.asarray(image) == codec.decode([stream])[0].image).all()
    assert json.loads(said)["width"] == 50
    assert through(stream, "decode", "-", "-o", "-", "--format", "jpg").out.startswith(b"\xff\xd8")
    said, _ = through(stream, "decode", "-", "-o", str(tmp_path / "back.png"))
    assert said.decode() == f"{tmp_path}/back.png: 50 x 20 pixels, quality 4\n"


def test_what_standard_streams_cannot_do(tiny):
    for content, words in ((b"", "is empty"), (b"no picture", "is not an image")):
        done = pipe("encode", "-", "-o", "-", "--codec", tiny, content=content)
        assert (done.returncode, done.stdout) == (1, b"")
        assert words in done.stderr.decode()
    done = pipe("encode", "-", "--codec", tiny, content=b"")
    assert b"name the file to write with -o" in done.stderr
    done = pipe("decode", "-", "-o", "-", "--codec", tiny, content=b"no stream")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"This is not a .cotam stream" in done.stderr
    master, terminal = pty.openpty()
    try:
        done = pipe("encode", "-", "-o", "-", stdin=terminal)
        assert b"Standard output is a terminal" not in done.stderr
        assert b"Standard input is a terminal" in done.stderr
        done = pipe("decode", "-", "-o", "-", stdout=terminal)
        assert b"Standard output is a terminal" in done.stderr
    finally:
        os.close(master)
        os.close(terminal)
