"""The fast transforms of the micro codec: bands change nothing, rounding stays within the limits of docs/codec.md."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from components.codec.codec import Codec, _as_tensor
from components.codec.fast import FastTransforms, rounded_kernels, short_type
from components.codec.split import SplitConv, split
from components.evaluation.pictures import photographs, psnr
from components.paths import ROOT

MICRO = ROOT / "pretrained/codec/elic-micro"


@pytest.fixture(scope="module")
def codec():
    return Codec.from_pretrained(MICRO)


@pytest.fixture(scope="module")
def fast_codec():
    return Codec.from_pretrained(MICRO, fast=True)


@pytest.fixture(scope="module")
def pictures():
    return [np.ascontiguousarray(picture[40:168, 60:220]) for picture in list(photographs().values())[:2]]


@pytest.mark.parametrize("batch", [1, 2])
def test_bands_in_float32_are_the_whole_picture(codec, pictures, batch):
    model = codec.model
    # Bands so narrow that at every resolution several meet, the last of them smaller than the rest.
    fast = FastTransforms(model, torch.float32, band_bytes=batch * 160 * 64 * 10)
    x_B3HW = _as_tensor(pictures[:batch])
    map_BHW = torch.randint(0, 10, (batch, 8, 10), generator=torch.Generator().manual_seed(1))
    before = x_B3HW.clone(), map_BHW.clone()
    with torch.inference_mode():
        y_BCHW = model.analyse(x_B3HW, map_BHW)
        assert (fast.analyse(x_B3HW, map_BHW) - y_BCHW).abs().max() <= 1e-5 * y_BCHW.abs().max()
        latent_BCHW = model.ungain(y_BCHW.round(), map_BHW)
        kept = latent_BCHW.clone()
        image_B3HW = model.synthesize(latent_BCHW, map_BHW)
        assert (fast.synthesize(latent_BCHW, map_BHW) - image_B3HW).abs().max() <= 1e-5
    assert torch.equal(before[0], x_B3HW)
    assert torch.equal(before[1], map_BHW)
    assert torch.equal(kept, latent_BCHW)


def test_a_map_of_one_quality_is_like_any_other(codec, pictures):
    fast = FastTransforms(codec.model)
    x_13HW = _as_tensor(pictures[:1])
    even_1HW = torch.full((1, 8, 10), 3)
    other_1HW = even_1HW.clone()
    other_1HW[:, -1, -1] = 4
    # What is far from the one other place is the same.
    y_1CHW, z_1CHW = fast.analyse(x_13HW, even_1HW), fast.analyse(x_13HW, other_1HW)
    assert torch.allclose(y_1CHW[..., :2, :2], z_1CHW[..., :2, :2], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("quality", [0, 4, 9])
def test_rounding_stays_within_the_limits(codec, fast_codec, pictures, quality):
    plain, fast = (c.encode(pictures, quality) for c in (codec, fast_codec))
    # Streams have whole words of four bytes: on pictures this small one may be half a per cent.
    assert sum(map(len, fast)) == pytest.approx(sum(map(len, plain)), rel=0.005, abs=16)
    for picture, mine, other in zip(pictures, fast_codec.decode(fast), codec.decode(plain), strict=True):
        assert psnr(other.image, mine.image) > 45
        assert psnr(picture, mine.image) > psnr(picture, other.image) - 0.1


def test_each_reads_the_streams_of_the_other(codec, fast_codec, pictures):
    levels = [np.array([[1, 0], [0, -1]], np.int8)] * len(pictures)
    for one, other in ((codec, fast_codec), (fast_codec, codec)):
        streams = one.encode(pictures, 2, levels)
        for mine, theirs in zip(one.decode(streams), other.decode(streams), strict=True):
            assert np.array_equal(mine.latent, theirs.latent)
            assert psnr(mine.image, theirs.image) > 45


def test_a_picture_of_one_pixel(fast_codec):
    picture = np.full((1, 1, 3), 90, np.uint8)
    [decoded] = fast_codec.decode(fast_codec.encode([picture], 9))
    assert decoded.size == (1, 1)


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_rounded_kernels_keep_their_sums(kind):
    torch.manual_seed(0)
    conv = kind(8, 6, 5)
    before = copy.deepcopy(conv.state_dict())
    rounded = rounded_kernels(conv, torch.bfloat16).weight
    assert torch.equal(rounded, rounded.bfloat16().float())
    assert torch.equal(conv.weight, before["weight"])
    plain = conv.weight.bfloat16().float()
    wanted = conv.weight.sum((2, 3))
    assert (rounded.sum((2, 3)) - wanted).abs().mean() < 0.1 * (plain.sum((2, 3)) - wanted).abs().mean()


def test_the_short_type_suits_the_machine():
    assert short_type(torch.device("cuda")) == torch.float16
    assert short_type(torch.device("cpu")) in (torch.bfloat16, torch.float32)


def test_two_short_numbers_make_a_long_one():
    x = torch.randn(1, 5, 7, 6)
    high, low = split(x)
    assert high.dtype == low.dtype == torch.bfloat16
    assert (high.double() + low.double() - x).abs().max() <= 2**-16 * x.abs().max()


@pytest.mark.skipif(short_type(torch.device("cpu")) != torch.bfloat16, reason="bfloat16 is not fast here")
def test_a_split_convolution_is_nearly_one_in_float32():
    torch.manual_seed(0)
    conv = nn.Conv2d(24, 40, 5, stride=2, padding=2).requires_grad_(False)
    x = torch.randn(2, 24, 18, 22).contiguous(memory_format=torch.channels_last)
    expected = conv.double()(x.double())
    found = SplitConv(conv.float())(x)
    assert found.dtype == torch.float32
    assert (found - expected).norm() < 3e-5 * expected.norm()
