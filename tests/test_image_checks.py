"""Whatever a person's picture file is, they get the picture they would see, or one sentence why not."""

import io
import re
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile, ImageOps

from components.data.images import decode, open_image
from components.errors import CotamError
from tests.pictures import BLUE, RED, file_bytes, halves, noise, png_of_16_bits, tiff_of_16_bits


def near(colour, expected, tolerance=12):
    return np.abs(np.subtract(colour, expected)).max() <= tolerance


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "GIF", "WEBP", "JPEG", "AVIF"])
def test_every_format_gives_the_same_picture(kind):
    image = open_image(file_bytes(halves(), kind))
    assert (image.mode, image.size) == ("RGB", (64, 48))
    assert near(image.getpixel((32, 8)), RED)
    assert near(image.getpixel((32, 40)), BLUE)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
def test_every_colour_mode_becomes_rgb(mode):
    image = open_image(file_bytes(noise(1).convert(mode), "TIFF"))
    assert np.array_equal(np.asarray(image), np.asarray(noise(1).convert(mode).convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied_and_removed(orientation):
    shown = halves()
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Transpose that makes the stored picture of the shown one
    stored = shown if orientation == 1 else shown.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image, kind = decode(file_bytes(stored, "JPEG", exif=exif, quality=95))
    assert image.size == shown.size
    assert near(image.getpixel((32, 8)), RED)
    assert near(image.getpixel((32, 40)), BLUE)
    assert kind == ("jpg" if orientation == 1 else None)
    assert not image.getexif()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_seen_over_white(mode):
    image = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 20, 40))
    if mode == "P":
        image = image.quantize(4)
    content = file_bytes(image if mode == "P" else image.convert(mode), "PNG")
    seen = open_image(content)
    assert seen.getpixel((5, 5)) == (0, 0, 0)
    assert seen.getpixel((35, 5)) == (255, 255, 255)


def test_sixteen_bits_are_scaled_rather_than_clipped():
    values = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        grey = np.asarray(open_image(file_bytes(Image.fromarray(values), kind)))[..., 0]
        assert np.abs(grey - values / 257.0).max() <= 0.51


@pytest.mark.parametrize(
    ("write", "channels"),
    [*((png_of_16_bits, count) for count in (1, 2, 3, 4)), *((tiff_of_16_bits, count) for count in (1, 3, 4))],
)
def test_colours_and_transparency_of_sixteen_bits(write, channels):
    values = np.random.default_rng(channels).integers(0, 65536, (30, 44, channels), dtype=np.uint16)
    alpha = np.ones((30, 44, 1))
    if channels in (2, 4):
        values[:, :20, -1], values[:, 20:, -1] = 0, 65535
        alpha = values[..., -1:] / 65535
    colours = values[..., :3] if channels >= 3 else values[..., :1]
    seen = np.asarray(open_image(write(values))).astype(int)
    assert np.abs(seen - (colours / 257.0 * alpha + 255 * (1 - alpha))).max() <= 1


def test_half_transparent_pixels_are_mixed_with_white():
    for mode, colour in (("RGBA", (100, 0, 200, 128)), ("LA", (100, 128))):
        [seen] = open_image(file_bytes(Image.new(mode, (1, 1), colour), "PNG")).getdata()
        expected = [round(value * 128 / 255 + 127) for value in ((100, 0, 200) if mode == "RGBA" else (100,) * 3)]
        assert near(seen, expected, 1)


def test_a_palette_with_one_transparent_colour():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    for kind in ("PNG", "GIF"):
        seen = open_image(file_bytes(image, kind, transparency=1))
        assert list(seen.getdata()) == [(10, 20, 30), (255, 255, 255)]


@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_rotation_of_a_png_and_a_tiff(orientation):
    stored = noise(orientation, 5, 3)
    expected = ImageOps.exif_transpose(_with_orientation(stored, "PNG", orientation))
    for kind in ("PNG", "TIFF", "WEBP"):
        content = _oriented(stored, kind, orientation)
        assert np.array_equal(np.asarray(open_image(content)), np.asarray(expected))


def _oriented(image, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return file_bytes(image, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))


def _with_orientation(image, kind, orientation):
    return Image.open(io.BytesIO(_oriented(image, kind, orientation)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_a_single_pixel_of_every_mode(mode):
    kind = "TIFF" if mode == "CMYK" else "PNG"
    image = open_image(file_bytes(Image.new(mode, (1, 1)), kind))
    assert (image.mode, image.size) == ("RGB", (1, 1))


def test_floating_point_pictures_are_refused():
    content = file_bytes(Image.fromarray(np.ones((40, 40), np.float32)), "TIFF")
    with pytest.raises(CotamError, match="floating-point"):
        open_image(content)


def test_of_an_animation_the_first_frame_is_taken():
    content = file_bytes(halves(), "GIF", save_all=True, append_images=[noise(2, 64, 48)])
    assert near(open_image(content).getpixel((32, 8)), RED)


def test_a_colour_profile_that_does_not_fit_is_left_out():
    other = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    same = open_image(file_bytes(halves(), "PNG", icc_profile=other.tobytes()))
    assert same.getpixel((32, 8)) == RED
    broken = open_image(file_bytes(halves(), "PNG", icc_profile=b"not a profile"))
    assert broken.getpixel((32, 8)) == RED


def test_plain_files_are_known_as_such():
    kinds = {
        "jpg": file_bytes(noise(1), "JPEG"),
        "png": file_bytes(noise(1), "PNG"),
    }
    for kind, content in kinds.items():
        assert decode(content)[1] == kind
    for other in (file_bytes(noise(1), "WEBP"), file_bytes(noise(1).convert("L"), "JPEG")):
        assert decode(other)[1] is None


def test_a_huge_picture_is_refused_before_it_is_decoded():
    header = struct.pack(">4sIIBBBBB", b"IHDR", 40_000, 40_000, 1, 0, 0, 0, 0)
    small = file_bytes(Image.new("1", (40, 40)), "PNG")
    content = small[:12] + header + struct.pack(">I", zlib.crc32(header)) + small[33:]  # says 1.6 gigapixels
    with pytest.raises(CotamError, match="more than 100000000 pixels"):
        open_image(content)
    with pytest.raises(CotamError, match="more than 1000 pixels"):
        open_image(file_bytes(noise(1), "PNG"), maximum_pixels=1000)


def test_what_is_wrong_with_a_file_is_one_sentence(tmp_path):
    (tmp_path / "text.jpg").write_text("I am not a picture.")
    (tmp_path / "empty.png").touch()
    whole = file_bytes(noise(1), "JPEG")
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    expected = {
        "text.jpg": "is not an image of a known format",
        "empty.png": "is empty",
        "half.jpg": "is damaged",
        "missing.jpg": "does not exist",
        "": "is a folder",
    }
    for name, reason in expected.items():
        with pytest.raises(CotamError, match=rf"^{re.escape(str(tmp_path / name))} {reason}[^\n]*\.$"):
            open_image(tmp_path / name)


@given(
    kind=st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"]),
    cut=st.integers(0, 400),
    flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), max_size=4),
)
def test_a_damaged_file_is_a_picture_or_a_sentence(kind, cut, flips):
    content = bytearray(file_bytes(noise(3, 24, 16), kind))
    for place, value in flips:
        content[place % len(content)] ^= value
    try:
        assert open_image(bytes(content[: max(1, len(content) - cut)])).mode == "RGB"
    except CotamError as error:
        assert "\n" not in str(error)


def test_cut_files_are_found_whatever_a_library_has_told_pillow(monkeypatch):
    """lmms-eval sets this for the whole process as it is imported."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    content = file_bytes(noise(1), "JPEG")
    with pytest.raises(CotamError, match="damaged"):
        open_image(content[: len(content) // 2])
