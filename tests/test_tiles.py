"""Large images in tiles: what the whole would give, and streams that everybody decodes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from components.codec import Codec, tiles
from components.codec.config import STRIDE, CodecConfig
from components.codec.elic import Elic
from components.codec.level_map import quality_map
from components.paths import ROOT
from tests.test_codec import assert_same, maps, pictures, tiny_codec_folder

CODECS = [ROOT / "pretrained/codec/elic-micro"]  # others are never cut


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 9), st.integers(1, 25))
def test_tiles_cover_a_latent_once_and_see_their_halo(height, width, halo, side):
    covered = np.zeros((height, width), int)
    places = np.arange(height * width).reshape(height, width)
    for tile in tiles.cut((height, width), halo, side):
        covered[tile.core()] += 1
        around = places[tile.around()]
        assert (around[tile.inner()] == places[tile.core()]).all()
        assert max(places[tile.core()].shape) <= side
        for at, span, extent in zip(tile.core(), (tile.rows, tile.columns), (height, width), strict=True):
            assert span.first == max(0, at.start - halo)
            assert span.last == min(extent, at.stop + halo)
    assert (covered == 1).all()


@pytest.mark.parametrize(("kernel", "blocks"), [(4, 1), (5, 3)])
def test_the_halo_is_as_wide_as_the_networks_look(kernel, blocks):
    """Measured by gradients: with positive weights nothing cancels, so every pixel that counts has one."""
    config = CodecConfig(widths=(4, 4, 4), latent_channels=8, groups=(4, 4), blocks=blocks, kernel=kernel)
    model = Elic(config).double()
    with torch.no_grad():
        for part in (model.down, model.analysis, model.up, model.synthesis):
            for parameter in part.parameters():
                parameter.fill_(0.05)
    for module in model.modules():
        if hasattr(module, "branches"):
            module.forward = _in_double(module)
    halos = tiles.halos(Elic(config))
    extent, middle = 33, 16
    maps_1HW = torch.zeros(1, extent, extent, dtype=torch.int64)

    x = torch.ones(1, 3, extent * STRIDE, extent * STRIDE, dtype=torch.float64, requires_grad=True)
    model.analyse(x, maps_1HW)[0, :, middle, middle].sum().backward()
    reached = x.grad[0].abs().amax(0).unfold(0, STRIDE, STRIDE).unfold(1, STRIDE, STRIDE).amax((2, 3)) > 0
    assert halos.analysis - 2 <= _extent(reached, middle) <= halos.analysis

    y = torch.ones(1, 8, extent, extent, dtype=torch.float64, requires_grad=True)
    start = middle * STRIDE
    model.synthesize(y, maps_1HW)[0, :, start : start + STRIDE, start : start + STRIDE].sum().backward()
    assert halos.synthesis - 2 <= _extent(y.grad[0].abs().amax(0) > 0, middle) <= halos.synthesis


def _in_double(refine):
    def forward(x):
        for branch in refine.branches:
            x = x + branch(x)
        return x

    return forward


def _extent(reached, middle):
    rows, columns = torch.nonzero(reached, as_tuple=True)
    return int(max((rows - middle).abs().max(), (columns - middle).abs().max()))


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles of at most 64 x 64 pixels, for every image that is larger."""
    cut = tiles.cut
    monkeypatch.setattr(tiles, "WHOLE", 4096)
    monkeypatch.setattr(tiles, "cut", lambda size, halo: cut(size, halo, 4))


@pytest.mark.parametrize("folder", CODECS, ids=lambda folder: folder.name)
def test_tiles_give_what_the_whole_gives(folder, monkeypatch):
    codec = Codec.from_pretrained(folder)
    [image], [levels] = pictures([(327, 410)]), maps(1)
    map_1HW = torch.from_numpy(quality_map(5, codec.latent_size(327, 410), levels, codec.config.qualities))[None]
    with torch.inference_mode():
        y_whole = codec._analyse([image], map_1HW)
        stream = codec.encode([image], 5, [levels])[0]
        whole = codec.decode([stream])[0]
        cut = tiles.cut
        monkeypatch.setattr(tiles, "WHOLE", 4096)
        monkeypatch.setattr(tiles, "cut", lambda size, halo: cut(size, halo, 8))
        y_tiles = codec._analyse([image], map_1HW)
    assert torch.allclose(y_tiles, y_whole, rtol=1e-5, atol=1e-5 * float(y_whole.abs().max()))
    in_tiles = codec.decode([stream])[0]
    assert (in_tiles.latent == whole.latent).all()
    difference = np.abs(in_tiles.image.astype(int) - whole.image)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


def test_streams_of_tiles_decode_to_what_the_encoder_reconstructs(small_tiles, tmp_path):
    codec = Codec.from_pretrained(tiny_codec_folder(tmp_path / "tiny"))
    images = pictures([(1, 1), (65, 130), (200, 17), (129, 129)])
    guidance = maps(len(images))
    streams = codec.encode(images, [9, 0, 5, 7], guidance)
    for made, expected in zip(codec.decode(streams), codec.reconstruct(images, [9, 0, 5, 7], guidance), strict=True):
        assert_same(made, expected)


def test_an_image_of_a_million_and_more_pixels(tmp_path):
    codec = Codec.from_pretrained(tiny_codec_folder(tmp_path / "tiny"))
    [image] = pictures([(1023, 1537)])
    [stream] = codec.encode([image], 3)
    [decoded] = codec.decode([stream])
    assert_same(decoded, codec.reconstruct([image], 3)[0])
    assert decoded.image.shape == image.shape
    assert len(codec._tiles(torch.from_numpy(decoded.level_map)[None], "synthesis")) == 2
