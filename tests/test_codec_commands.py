"""`cotam encode`, `decode` and `inspect`, as they are typed, with the codec and the tower that ship."""

import json
import os
import resource
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from components import config
from components.cli import main
from components.codec import Codec
from components.codec.container import header_bytes, unpack
from components.codec.level_map import cost_bits
from components.data.images import open_image
from components.evaluation.coding import load_guide
from components.paths import ROOT
from components.scenes import render, sample_scene
from tests.pictures import file_bytes
from tests.test_cli import HEAVY
from tests.test_codec import tiny_codec_folder

SHIPPED = ROOT / "pretrained/codec/elic-micro"


@pytest.fixture(scope="module")
def picture():
    return Image.fromarray(render(sample_scene(3, "validation", "bench"))).crop((0, 0, 128, 100))


@pytest.fixture
def photo(picture, tmp_path):
    path = tmp_path / "photo.png"
    picture.save(path)
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A codec that loads and runs at once, for what does not depend on training."""
    return str(tiny_codec_folder(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def stream(picture, tiny):
    return Codec.from_pretrained(tiny).encode([picture], 4, [np.array([[1, 0], [0, -1]])])[0]


def said(capsys):
    """The one sentence on stderr of a command that failed, and nothing on stdout."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("cotam: ")
    assert err.count("\n") == 1
    return err


def test_a_picture_goes_through_a_file_and_back(photo, picture, tmp_path, capsys):
    coded, back = tmp_path / "photo.cotam", tmp_path / "back.png"
    assert main(["encode", str(photo), "-o", str(coded), "--quality", "6"]) == 0
    line = capsys.readouterr().out
    assert main(["decode", str(coded), "-o", str(back)]) == 0
    assert capsys.readouterr().out == f"{back}: 128 x 100 pixels, quality 6\n"

    codec, guidance = Codec.from_pretrained(SHIPPED), config.load().guidance
    levels = load_guide(**guidance.model_dump())([picture])
    assert coded.read_bytes() == codec.encode([picture], 6, levels)[0]
    size = coded.stat().st_size
    rate, bare = size * 8 / 12800, (size - header_bytes(coded.read_bytes())) * 8 / 12800
    assert line == (
        f"{coded}: {size} bytes, {rate:.4f} bits per pixel ({bare:.4f} without the header), quality 6, "
        f"map {guidance.grid} x {guidance.grid} of {cost_bits(levels[0]):.0f} bits\n"
    )
    assert (np.asarray(Image.open(back)) == codec.reconstruct([picture], 6, levels)[0].image).all()
    error = np.mean(np.square(np.asarray(Image.open(back), float) - np.asarray(picture, float)))
    assert 10 * np.log10(255**2 / error) > 22


def test_plain_coding_loads_no_tower(photo, tmp_path):
    code = (
        "import sys\nfrom components.cli import main\n"
        f"code = main(['encode', {str(photo)!r}, '--plain', '--json'])\n"
        "assert 'components.vision' not in sys.modules\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    coded = tmp_path / "photo.cotam"  # beside the image, as no -o was given
    codec = Codec.from_pretrained(SHIPPED)
    assert coded.read_bytes() == codec.encode([open_image(photo)], 4)[0]
    size = coded.stat().st_size
    assert json.loads(done.stdout) == {
        "file": str(coded),
        "source": str(photo),
        "plain": True,
        "codec": codec.model_id,
        "width": 128,
        "height": 100,
        "quality": 4,
        "bytes": size,
        "bpp": 8 * size / 12800,
        "bpp_without_header": 8 * (size - header_bytes(coded.read_bytes())) / 12800,
        "grid": None,
        "map_bits": 0.0,
    }


def test_any_picture_can_be_coded(picture, tiny, tmp_path, capsys):
    turned = Image.Exif()
    turned[0x0112] = 6
    files = {
        "small.jpg": file_bytes(Image.new("RGB", (1, 1), "red"), "JPEG"),
        "turned.jpg": file_bytes(picture, "JPEG", exif=turned),
        "grey.png": file_bytes(picture.convert("L"), "PNG"),
        "palette.gif": file_bytes(picture.convert("P"), "GIF"),
        "clear.webp": file_bytes(picture.convert("RGBA"), "WEBP"),
        "print.tif": file_bytes(picture.convert("CMYK"), "TIFF"),
        "no suffix": file_bytes(picture, "PNG"),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        assert main(["encode", str(tmp_path / name), "--plain", "--codec", tiny, "--quality", "9"]) == 0
        coded = (tmp_path / name).with_suffix(".cotam")
        assert main(["decode", str(coded), "-o", str(tmp_path / "back.bmp"), "--codec", tiny]) == 0
        assert Image.open(tmp_path / "back.bmp").size == open_image(tmp_path / name).size
    assert Image.open(tmp_path / "back.bmp").size == (128, 100)
    assert "100 x 128 pixels" in capsys.readouterr().out  # turned.jpg stands upright


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".TIFF", ".bmp", ".ppm"])
def test_formats_keep_every_pixel(suffix, stream, tiny, tmp_path):
    (tmp_path / "photo.cotam").write_bytes(stream)
    out = tmp_path / f"back{suffix}"
    assert main(["decode", str(tmp_path / "photo.cotam"), "-o", str(out), "--codec", tiny]) == 0
    expected = Codec.from_pretrained(tiny).decode([stream])[0].image
    assert (np.asarray(Image.open(out).convert("RGB")) == expected).all()


def test_jpeg_is_written_when_it_is_asked_for(stream, tiny, tmp_path, capsys):
    (tmp_path / "photo.cotam").write_bytes(stream)
    out = tmp_path / "back.jpg"
    assert main(["decode", str(tmp_path / "photo.cotam"), "-o", str(out), "--codec", tiny, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "file": str(out),
        "source": str(tmp_path / "photo.cotam"),
        "codec": Codec.from_pretrained(tiny).model_id,
        "width": 128,
        "height": 100,
        "quality": 4,
    }
    assert Image.open(out).format == "JPEG"


def test_more_pixels_than_allowed_are_refused(stream, tiny, tmp_path, capsys):
    coded, out = tmp_path / "photo.cotam", tmp_path / "back.png"
    coded.write_bytes(stream)
    command = ["decode", str(coded), "-o", str(out), "--codec", tiny, "--maximum-pixels"]
    assert main([*command, "12799"]) == 1
    assert "declares 128 x 100, more than 12799 pixels" in said(capsys)
    assert not out.exists()
    assert main([*command, "12800"]) == 0
    with pytest.raises(SystemExit):
        main([*command, "0"])


def test_inspect_says_what_is_in_the_files(stream, tiny, tmp_path, capsys):
    first, second = tmp_path / "first.cotam", tmp_path / "second.cotam"
    first.write_bytes(stream)
    codec = Codec.from_pretrained(tiny)
    second.write_bytes(codec.encode([Image.new("RGB", (33, 17))], 0, [np.zeros((1, 3))])[0])
    assert main(["inspect", str(first)]) == 0
    header, payload = unpack(stream)
    rate, bare = len(stream) * 8 / 12800, len(payload) * 8 / 12800
    assert capsys.readouterr().out.splitlines() == [
        str(first),
        "  version   2",
        f"  codec     {codec.model_id}",
        "  size      128 x 100 pixels",
        "  quality   4",
        "  map       2 x 2 cells",
        f"  bytes     {len(stream)} (16 header, {len(payload)} payload)",
        f"  rate      {rate:.4f} bits per pixel ({bare:.4f} without the header)",
        f"  checksum  {header.check:08x}",
    ]
    assert main(["inspect", str(first), str(second), "--json"]) == 0
    reports = json.loads(capsys.readouterr().out)
    assert [report["file"] for report in reports] == [str(first), str(second)]
    assert reports[0]["grid"] == [2, 2]
    assert reports[0]["bpp"] == rate
    assert reports[1] | {"bytes": 0, "payload_bytes": 0, "bpp": 0, "bpp_without_header": 0, "checksum": ""} == {
        "file": str(second),
        "version": 2,
        "codec": codec.model_id,
        "width": 33,
        "height": 17,
        "quality": 0,
        "grid": [1, 3],
        "bytes": 0,
        "header_bytes": 16,
        "payload_bytes": 0,
        "bpp": 0,
        "bpp_without_header": 0,
        "checksum": "",
    }


def test_inspect_names_bad_files_and_shows_the_good_ones(stream, tmp_path, capsys):
    good, text = tmp_path / "good.cotam", tmp_path / "text.cotam"
    good.write_bytes(stream)
    text.write_text("no stream")
    missing = tmp_path / "missing.cotam"
    assert main(["inspect", str(missing), str(good), str(text)]) == 1
    out, err = capsys.readouterr()
    assert out.startswith(f"{good}\n")
    assert err.splitlines() == [
        f"cotam: {missing} does not exist.",
        f"cotam: {text}: This is not a .cotam stream; make one with `cotam encode`.",
    ]


def test_inspect_imports_nothing_heavy(stream, tmp_path):
    (tmp_path / "a.cotam").write_bytes(stream)
    code = (
        f"import sys\nfrom components.cli import main\ncode = main(['inspect', {str(tmp_path / 'a.cotam')!r}])\n"
        f"print('heavy:', sorted(set(sys.modules) & set({HEAVY})))\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("heavy: []\n")


@pytest.mark.parametrize("quality", ["11", "10", "-1", "4.5", "best", ""])
def test_a_quality_that_does_not_exist(quality, photo, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["encode", str(photo), f"--quality={quality}"])
    assert end.value.code == 2
    err = capsys.readouterr().err
    assert f"there is no quality {quality}; choose 0 (smallest file) to 9" in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [photo]


def test_what_cannot_be_encoded(photo, tiny, tmp_path, capsys):
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "cut.png").write_bytes(photo.read_bytes()[:200])
    os.link(photo, tmp_path / "same.cotam")
    (tmp_path / "folder").mkdir()
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    mistakes = {
        "missing.jpg does not exist": [str(tmp_path / "missing.jpg")],
        "text.jpg is not an image": [str(tmp_path / "text.jpg")],
        "cut.png is damaged": [str(tmp_path / "cut.png")],
        f"{tmp_path} is a folder; name the folder to write into": [str(tmp_path)],
        f"{tmp_path} is a folder, so -o names a folder": [str(tmp_path), "-o", str(tmp_path / "a.cotam")],
        "photo.png is the file to read; name another": [str(photo), "-o", str(photo)],
        "same.cotam is the file to read; name another": [str(photo), "-o", str(tmp_path / "same.cotam")],
        "folder is a folder; name the file": [str(photo), "-o", str(tmp_path / "folder")],
        "text.jpg/a.cotam cannot be written": [str(photo), "-o", str(tmp_path / "text.jpg/a.cotam"), "--codec", tiny],
        "There is no model at nowhere": [str(photo), "--codec", "nowhere"],
        f"{tmp_path / 'folder'}/config.json does not exist": [str(photo), "--codec", str(tmp_path / "folder")],
    }
    for words, arguments in mistakes.items():
        assert main(["encode", *arguments, "--plain"]) == 1, words
        assert words in said(capsys)
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_what_cannot_be_decoded(stream, tiny, tmp_path, capsys):
    good = tmp_path / "good.cotam"
    good.write_bytes(stream)
    flipped = bytearray(stream)
    flipped[len(stream) // 2] ^= 4
    damaged = {
        "cut.cotam": stream[:-5],
        "half.cotam": stream[: len(stream) // 8 * 4],  # 16 bytes of header, whole words after it
        "head.cotam": stream[:10],
        "empty.cotam": b"",
        "flipped.cotam": bytes(flipped),
        "later.cotam": stream[:2] + bytes([0x50 | stream[2] & 15]) + stream[3:],
        "text.cotam": b"not a stream",
    }
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
    out = str(tmp_path / "out.png")
    mistakes = {
        "missing.cotam does not exist": ["missing.cotam"],
        f"{tmp_path} is a folder": [str(tmp_path)],
        "cut.cotam: The stream is truncated": [str(tmp_path / "cut.cotam")],
        "half.cotam: The stream is damaged": [str(tmp_path / "half.cotam")],
        "head.cotam: The stream is truncated": [str(tmp_path / "head.cotam")],
        "empty.cotam: This is not a .cotam stream": [str(tmp_path / "empty.cotam")],
        "flipped.cotam: The stream is damaged": [str(tmp_path / "flipped.cotam")],
        "later.cotam: The stream has version 5": [str(tmp_path / "later.cotam")],
        "text.cotam: This is not a .cotam stream": [str(tmp_path / "text.cotam")],
        "good.cotam: The stream was made by codec": [str(good), "--codec", str(SHIPPED)],
        ".png, .webp": [str(good), "-o", str(tmp_path / "out.xyz")],
        "names no image format": [str(good), "-o", str(tmp_path / "out")],
    }
    before = sorted(tmp_path.iterdir())
    for words, arguments in mistakes.items():
        assert main(["decode", "-o", out, "--codec", tiny, *arguments]) == 1, words
        assert words in said(capsys)
    # A stream whose name says that it is a picture is not written over.
    good.rename(tmp_path / "good.png")
    assert main(["decode", str(tmp_path / "good.png"), "-o", str(tmp_path / "good.png"), "--codec", tiny]) == 1
    assert "is the file to read" in said(capsys)
    assert (tmp_path / "good.png").read_bytes() == stream
    (tmp_path / "good.png").rename(good)
    assert sorted(tmp_path.iterdir()) == before


def test_decode_wants_to_know_where_to(stream, tmp_path, capsys):
    (tmp_path / "photo.cotam").write_bytes(stream)
    with pytest.raises(SystemExit) as end:
        main(["decode", str(tmp_path / "photo.cotam")])
    assert end.value.code == 2
    assert "-o/--out" in capsys.readouterr().err


def test_a_disk_without_room_leaves_nothing_half_written(photo, stream, tiny, tmp_path, capsys, injected):
    """The kernel refuses to let any file grow beyond 100 bytes, as a full disk would."""
    (tmp_path / "in.cotam").write_bytes(stream)
    (tmp_path / "old.cotam").write_bytes(b"what was there before")
    before = sorted(tmp_path.iterdir())
    commands = {
        "old.cotam": ["encode", str(photo), "--plain", "--quality", "9"],
        "new.png": ["decode", str(tmp_path / "in.cotam")],
    }
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for name, command in commands.items():
        out = tmp_path / name
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        try:
            code = main([*command, "-o", str(out), "--codec", tiny])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert code == 1
        injected("full")
        assert said(capsys) == (
            f"cotam: {out} cannot be written (File too large); free some room or choose another place.\n"
        )
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "old.cotam").read_bytes() == b"what was there before"
