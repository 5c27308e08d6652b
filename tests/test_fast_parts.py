"""What the fast transforms are made of: folded convolutions, convolutions that add or rectify, gains that differ."""

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import fast as bench
from components.codec.config import CodecConfig
from components.codec.elic import Attention, Elic
from components.codec.fast import FastTransforms, short_type
from components.codec.folded import Folded
from components.codec.gains import Gain
from components.codec.short import ShortAttention, ShortBottleneck, ShortConv
from components.codec.transforms import Bottleneck, half
from tests.small_checkout import tiny_codec_folder

SHORT = [torch.float32, torch.bfloat16]
needs_bfloat16 = pytest.mark.skipif(short_type(torch.device("cpu")) != torch.bfloat16, reason="no fast bfloat16 here")


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def _gain(channels: int) -> Gain:
    gain = Gain(channels, torch.ones(3))
    gain.log_QC.data = 0.3 * torch.randn(3, channels)
    return gain.requires_grad_(False)


@pytest.mark.parametrize("kernel", [3, 4, 5, 6, 7])
@pytest.mark.parametrize("size", [(16, 16), (32, 48)])
def test_two_folded_convolutions_are_the_two_up_to_the_borders(kernel, size):
    first, second = (half(*channels, kernel).requires_grad_(False) for channels in ((3, 8), (8, 12)))
    gain = _gain(8)
    x_23HW = torch.randn(2, 3, *size).contiguous(memory_format=torch.channels_last)
    qualities_B = torch.tensor([2, 0])
    maps_BHW = qualities_B[:, None, None].expand(2, 1, 1)
    expected = second(gain.at(maps_BHW) * first(x_23HW))
    found = Folded(first, second, gain)(x_23HW, qualities_B)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("dtype", SHORT)
@pytest.mark.parametrize("size", [(1, 1), (6, 10)])
def test_a_joined_convolution_is_one_and_what_follows(dtype, size):
    conv = nn.Conv2d(8, 16, 3, padding=1).requires_grad_(False)
    x, features = (torch.randn(2, c, *size).to(dtype, memory_format=torch.channels_last) for c in (8, 16))
    kept = features.clone()
    layer = ShortConv(conv, dtype)
    plain = copy.deepcopy(conv).to(dtype).float()(x.float())
    tolerance = 1e-5 if dtype == torch.float32 else 2**-7
    assert torch.allclose(layer.rectified(x).float(), plain.relu(), rtol=tolerance, atol=tolerance)
    assert torch.allclose(layer(x).float(), plain, rtol=tolerance, atol=tolerance)
    layer.add_to(features, x)
    assert features.dtype == dtype
    assert torch.allclose(features.float(), kept.float() + plain, rtol=tolerance, atol=2 * tolerance)


@pytest.mark.parametrize(("kind", "short"), [(Bottleneck, ShortBottleneck), (Attention, ShortAttention)])
def test_a_branch_adds_to_all_that_it_is_given(kind, short):
    branch = kind(16).requires_grad_(False)
    for layer in branch.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.2)
    x = torch.randn(1, 16, 6, 10).contiguous(memory_format=torch.channels_last)
    other, before = torch.zeros_like(x), x.clone()
    added = short(branch, torch.float32)
    added(x, (x, other))
    assert added.reach == (1 if kind is Bottleneck else 3)
    assert torch.allclose(other, branch(before), atol=1e-4)
    assert torch.allclose(x, before + other, atol=1e-4)


@needs_bfloat16
@pytest.mark.parametrize("even", [True, False])
def test_a_map_costs_no_exactness(even):
    """Gains that differ from place to place, and from image to image, are folded, too; whatever the bands are."""
    model = Elic(CodecConfig(widths=(16, 16, 16), blocks=1, kernel=5)).eval().requires_grad_(False)
    for gain in model.analysis_gain:
        gain.log_QC.copy_(torch.linspace(0, 0.5, 10)[:, None] * torch.rand(16))
    for refine in model.analysis:
        nn.init.normal_(refine.branches[0][-1].weight, std=0.05)
    x_B3HW = torch.rand(2, 3, 96, 64).contiguous(memory_format=torch.channels_last)
    maps_BHW = torch.full((2, 6, 4), 4)
    maps_BHW[1] = 8
    if not even:
        maps_BHW[:, 1:3, 2:] += 1
        maps_BHW[0, 4:] -= 1
    expected = model.analyse(x_B3HW, maps_BHW)
    for band_bytes in (1 << 30, 64 << 10):
        found = FastTransforms(model, band_bytes=band_bytes).analyse(x_B3HW, maps_BHW)
        assert (found - expected).norm() < 2e-3 * expected.norm()


def test_the_benchmark_says_what_changes(tmp_path, monkeypatch, capsys):
    picture = np.random.default_rng(0).integers(0, 256, (80, 64, 3), dtype=np.uint8)
    monkeypatch.setattr("components.evaluation.pictures.photographs", lambda: {"one": picture})
    monkeypatch.setattr(bench, "use_threads", lambda count: None)
    codec = str(tiny_codec_folder(tmp_path / "codec"))
    monkeypatch.setattr("sys.argv", ["fast.py", "--codec", codec, "--size", "64", "--json"])
    assert bench.main() == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result) == {"0", "4", "9"}
    for row in result.values():
        assert all(45 < part["least"] <= part["mean"] for part in row["between"].values())
        assert row["lost"]["most"] < 0.1
        assert 0 <= row["changed_percent"] < 5
