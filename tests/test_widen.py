"""Benchmarks compare like with like: a widened codec is the same function, CompressAI's side has the same weights."""

import numpy as np
import pytest
import torch

from benchmarks.compressai_elic import CompressaiElic
from benchmarks.widen import copies, joined, padded, widen
from components.codec import Codec, CodecConfig
from components.codec.container import header_bytes
from components.codec.folder import load_codec
from components.errors import CotamError
from components.paths import ROOT
from components.scenes import render, sample_scene
from tests.small_checkout import tiny_codec_folder


@pytest.fixture(scope="module")
def micro():
    return load_codec(ROOT / "pretrained/codec/elic-micro")


@pytest.fixture(scope="module")
def picture():
    return render(sample_scene(3, "validation", "bench"))[32:96, 32:96]


def as_tensor(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255


def bits(found):
    return {name: float(-chances.log2().sum()) for name, chances in found["likelihoods"].items()}


@torch.inference_mode()
def test_the_micro_codec_at_full_width_is_the_same_function(micro, picture):
    wide = widen(micro)
    assert wide.config.widths == (192, 192, 192)
    assert wide.config.lambdas == micro.config.lambdas
    quality_map_BHW = torch.tensor([[[0, 4, 4, 9], [4, 4, 2, 2], [9, 9, 0, 4], [1, 5, 7, 3]]])
    expected, found = (model(as_tensor(picture), quality_map_BHW) for model in (micro, wide))
    assert torch.allclose(found["x_hat"], expected["x_hat"], atol=1e-4)
    channels, start = [], 0
    for size, wider in zip(micro.config.groups, wide.config.groups, strict=True):
        channels += range(start, start + size)
        start += wider
    assert torch.allclose(found["y_hat"][:, channels], expected["y_hat"], atol=1e-3)
    assert float(found["y_hat"].abs().sum()) == pytest.approx(float(found["y_hat"][:, channels].abs().sum()))
    for name, count in bits(expected).items():
        assert bits(found)[name] == pytest.approx(count, rel=1e-3)


@torch.inference_mode()
def test_odd_factors_and_silent_channels_keep_the_function(tmp_path, picture):
    model = load_codec(tiny_codec_folder(tmp_path / "codec"))
    config = CodecConfig(
        widths=(8, 21, 30), latent_channels=24, groups=(8, 16), blocks=2, kernel=5, hyper_channels=11,
        side_channels=12, context_channels=19, context_kernel=5, hidden_channels=33,
    )  # fmt: skip
    wide = widen(model, config)
    quality_map_BHW = torch.arange(16).reshape(1, 4, 4) % 10
    expected, found = (net(as_tensor(picture), quality_map_BHW) for net in (model, wide))
    assert torch.allclose(found["x_hat"], expected["x_hat"], atol=1e-4)
    assert bits(found)["y"] == pytest.approx(bits(expected)["y"], rel=1e-3, abs=5)
    with pytest.raises(CotamError, match="choose larger ones"):
        widen(wide, model.config)


def test_channels_share_what_they_copy():
    channels = joined([copies(2, 5), padded(2, 3)])
    assert channels.source_C.tolist() == [0, 1, 0, 1, 0, 2, 3, -1]
    assert channels.share_C.tolist() == pytest.approx([1 / 3, 1 / 2, 1 / 3, 1 / 2, 1 / 3, 1, 1, 0])
    assert channels.take(torch.tensor([10.0, 20, 30, 40]), 0, -7).tolist() == [10, 20, 10, 20, 10, 30, 40, -7]


@pytest.mark.parametrize("quality", [0, 5])
@torch.inference_mode()
def test_compressai_computes_and_codes_the_same(micro, picture, quality):
    theirs = CompressaiElic(micro, quality).eval()
    theirs.update()
    x_13HW = as_tensor(picture)
    expected, found = micro(x_13HW, torch.full((1, 4, 4), quality)), theirs(x_13HW)
    assert torch.allclose(found["x_hat"], expected["x_hat"], atol=1e-4)
    for name, count in bits(expected).items():
        assert bits(found)[name] == pytest.approx(count, rel=1e-3)
    written = theirs.compress(x_13HW)
    decoded = theirs.decompress(written["strings"], written["shape"])["x_hat"]
    assert torch.allclose(decoded, expected["x_hat"].clamp(0, 1), atol=1e-4)
    theirs_bits = 8 * sum(len(string) for [string] in written["strings"])
    [stream] = Codec(micro, "0" * 8).encode([picture], quality)
    ours_bits = 8 * (len(stream) - header_bytes(stream))
    most_overhead = 64 * len(written["strings"])  # of each string: its coder's state, and rounding up to 32 bits
    assert ours_bits - 32 < theirs_bits < ours_bits + most_overhead
