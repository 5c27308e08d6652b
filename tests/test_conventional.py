"""JPEG, WebP and AVIF: files that others read, smaller at lower quality, and what of them is header."""

import io

import numpy as np
import pytest
from PIL import Image

from components.baselines import conventional
from components.errors import CotamError
from tests.small_checkout import scenes


@pytest.mark.parametrize("name", conventional.ENCODERS)
def test_files_are_real_and_shrink_with_quality(name):
    picture = scenes(1)[0]
    files = [conventional.ENCODERS[name](picture, quality) for quality in (5, 50, 90)]
    sizes = [len(file) for file in files]
    assert sizes == sorted(sizes) and sizes[0] < sizes[2]
    assert [conventional.ENCODERS[name](picture, quality) for quality in (5, 50, 90)] == files
    errors = []
    for file in files:
        with Image.open(io.BytesIO(file)) as opened:
            assert opened.format == name.upper()
        decoded = conventional.decode(file)
        assert decoded.shape == picture.shape and decoded.dtype == np.uint8
        errors.append(np.square(decoded.astype(float) - picture).mean())
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("name", conventional.ENCODERS)
def test_what_is_no_header_grows_with_the_picture(name):
    small = scenes(1)[0]
    large = np.tile(small, (2, 2, 1))
    files = [conventional.ENCODERS[name](picture, 50) for picture in (small, large)]
    headers = [conventional.header_bytes(file) for file in files]
    assert abs(headers[0] - headers[1]) < 0.2 * headers[0]  # a Huffman table may differ
    coded = [len(file) - header for file, header in zip(files, headers, strict=True)]
    assert 0 < 2 * coded[0] < coded[1] < 5 * coded[0]


def test_avifs_pixels_are_one_frame_of_av1():
    """A flat picture has next to nothing but header; what is left is the frame alone."""
    flat = np.full((64, 64, 3), 120, np.uint8)
    file = conventional.avif_encode(flat, 10)
    assert 0 < len(file) - conventional.header_bytes(file) < 40
    start = file.index(b"mdat") + 4
    kinds = [kind for kind, _ in conventional._av1_units(file[start:])]
    assert kinds[-1] in (3, 6) and set(kinds) <= {1, 2, 3, 6}  # delimiter, sequence, frame
    lengths = [length for _, length in conventional._av1_units(file[start:])]
    assert sum(lengths) == len(file) - start


def test_other_files_are_refused():
    with pytest.raises(CotamError, match="no whole JPEG, WebP or AVIF"):
        conventional.decode(b"GIF89a and so on")
    with pytest.raises(CotamError, match="no whole JPEG, WebP or AVIF"):
        conventional.decode(conventional.avif_encode(scenes(1)[0], 30)[:200])


def test_without_avif_it_is_said(monkeypatch):
    monkeypatch.setattr(conventional.features, "check", lambda name: False)
    with pytest.raises(CotamError, match="without AVIF"):
        conventional.avif_encode(scenes(1)[0], 30)
