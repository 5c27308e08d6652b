"""`cotam bench exactness`: streams written in one way are read in another, and what would break others is seen to."""

import numpy as np
import pytest
import torch

from benchmarks import exactness as bench
from benchmarks.float_wire import as_float
from components.codec import products
from components.codec.codec import Codec
from components.paths import ROOT
from components.scenes import render, sample_scene


@pytest.fixture(scope="module")
def shipped():
    return Codec.from_pretrained(ROOT / "pretrained/codec/elic-micro")


def items():
    """Scenes of two sizes; on some the quality changes from place to place."""
    rng = np.random.default_rng(0)
    scenes = [render(sample_scene(seed, "validation", "bench")) for seed in range(9)]
    scenes[4:6] = [scene[:48, :80] for scene in scenes[4:6]]
    return [bench._picture(k, "scenes", scene, k, 10, rng) for k, scene in enumerate(scenes)]


@pytest.mark.parametrize("name", bench.CASES)
def test_what_is_written_in_one_way_is_read_in_another(shipped, name):
    writer, reader = bench.CASES[name]
    pictures = items()
    bench.write(shipped, pictures, writer)
    assert all(picture.payload for picture in pictures)
    assert bench.read(shipped, pictures, reader) == 0


def test_a_difference_would_be_seen(shipped):
    pictures = items()
    bench.write(shipped, pictures, bench.PLAIN)
    product = shipped.wire.exact.exact.aggregation[2][1]
    with torch.inference_mode():
        product.offset_O += 1 << 12  # less than a thousandth of a unit
    try:
        assert bench.read(shipped, pictures, bench.PLAIN) > 0
    finally:
        with torch.inference_mode():
            product.offset_O -= 1 << 12
    assert bench.read(shipped, pictures, bench.PLAIN) == 0


def test_the_integers_cost_little_and_the_yardstick_reads_itself(shipped):
    pictures = items()
    bench.write(shipped, pictures, bench.PLAIN)
    ours = sum(len(picture.payload) for picture in pictures)
    yardstick = as_float(shipped, torch.float64)
    bench.write(yardstick, pictures, bench.PLAIN)
    assert bench.read(yardstick, pictures, bench.PLAIN) == 0
    assert ours == pytest.approx(sum(len(picture.payload) for picture in pictures), rel=0.01)


def test_a_way_is_left_as_it_was_found():
    before = torch.get_num_threads(), torch.backends.mkldnn.enabled, products.multiplies_bytes
    with bench.computing(bench.OTHER):
        assert torch.get_num_threads() == 2
        assert not torch.backends.mkldnn.enabled
        assert not products.multiplies_bytes()
    assert (torch.get_num_threads(), torch.backends.mkldnn.enabled, products.multiplies_bytes) == before
