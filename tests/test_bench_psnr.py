"""`cotam bench psnr` and `cotam bench allocation`: what is measured on a picture, and what is drawn of it."""

import csv

import numpy as np
import pytest

from benchmarks import allocation, psnr
from components import config
from components.codec import Codec
from components.evaluation.allocation import changes
from tests.models import tiny_clip_folder
from tests.small_checkout import tiny_codec_folder

RISING = [(0.1, 30.0), (0.2, 32.0), (0.4, 34.0)]


def test_half_the_bits_are_minus_fifty_per_cent_and_a_shifted_curve_loses_what_it_is_shifted_by():
    curves = {
        "codec": RISING,
        "jpeg": [(2 * rate, score) for rate, score in RISING],
        "webp": RISING,
        "avif": [(rate, score + 50) for rate, score in RISING],
        psnr.GUIDED: [(rate, score - 0.25) for rate, score in RISING],
    }
    found = psnr.compare(curves)
    assert found["codec"]["jpeg"] == pytest.approx(-50)
    assert found["codec"]["webp"] == pytest.approx(0)
    assert found["codec"]["avif"] is None  # no PSNR in common
    assert found["guidance"]["psnr"] == pytest.approx(-0.25)
    assert found["guidance"]["bd_rate"] > 0


def test_measures_and_draws_every_method(tmp_path, monkeypatch):
    pictures = {"one": np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)}
    monkeypatch.setattr(psnr, "photographs", lambda: pictures)
    monkeypatch.setattr(psnr, "YARDSTICKS", {"jpeg": (5, 50), "webp": (5, 50), "avif": (5, 50)})
    settings = config.load(overrides={"guidance.tower": str(tiny_clip_folder(tmp_path / "clip"))})
    codec = tiny_codec_folder(tmp_path / "codec")
    found = psnr.measure([str(codec)], 1, settings)
    assert set(found) == {"photographs", "scenes"}
    for name, curves in found.items():
        assert set(curves) == {"codec", "jpeg", "webp", "avif", psnr.GUIDED}
        assert all(rate > 0 and 0 < score < 60 for points in curves.values() for rate, score in points)
        psnr.draw(tmp_path, name, curves)
        rows = list(csv.reader((tmp_path / f"psnr-{name}.csv").open()))
        assert len(rows) == 1 + sum(map(len, curves.values()))
        assert (tmp_path / f"psnr-{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "AVIF" in (tmp_path / f"psnr-{name}.svg").read_text()


def test_places_that_the_map_raises_get_bits_and_places_that_it_lowers_lose_them(tmp_path):
    pictures = {"one": np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)}
    codec = Codec.from_pretrained(tiny_codec_folder(tmp_path / "codec"))
    levels = np.array([[1, 0], [0, -1]], np.int8)
    found = allocation.measure(codec, lambda images: np.stack([levels] * len(images)), pictures, 5)
    raised, lowered = found["one"].levels_hw == 1, found["one"].levels_hw == -1
    assert raised.sum() == lowered.sum() == found["one"].levels_hw.size / 4
    bits = found["one"].plain_hw, found["one"].guided_hw
    change = changes(found.values())
    for key, places in (("raised", raised), ("lowered", lowered)):
        assert change[key] == pytest.approx(100 * (bits[1][places].sum() / bits[0][places].sum() - 1))
    allocation.draw(tmp_path / "allocation.png", pictures, found)
    assert (tmp_path / "allocation.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_raised_and_nothing_lowered_is_said_so():
    assert changes([]) == {"raised": None, "lowered": None}
