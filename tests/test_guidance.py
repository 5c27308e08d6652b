"""From attention to levels: closed-form maps, the width of the middle level, the grid, and a real tower."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from components.codec.guidance import guide, quantize, tiles_of
from components.config import load
from components.evaluation.coding import load_guide
from components.paths import ROOT
from components.scenes import object_mask, render, sample_scene
from components.vision import Geometry, load_tower
from tests.models import tiny_clip_folder

TOWER = ROOT / "pretrained/clip/micro"


def attention(*rows):
    return torch.tensor([rows], dtype=torch.float32)


def test_levels_by_hand():
    # Mean 2, deviation sqrt(3): at k = 0.75 the borders are 0.70 and 3.30.
    cells = attention([1, 1], [1, 5])
    assert quantize(cells, 2).tolist() == [[[0, 0], [0, 1]]]
    # At k = 0.5 they are 1.13 and 2.87.
    assert quantize(cells, 2, k=0.5).tolist() == [[[-1, -1], [-1, 1]]]
    # At k = 2 they are -1.46 and 5.46.
    assert quantize(cells, 2, k=2).tolist() == [[[0, 0], [0, 0]]]


def test_more_levels_reach_further_from_the_mean():
    # Mean 0, deviation 4.02: borders at k = 0.5 are 2.01, 4.02 and 6.03.
    cells = attention([-8, -3, 0], [0, 0, 0], [3, 3, 5])
    wanted = {3: [-1, -1, 0, 0, 0, 0, 1, 1, 1], 5: [-2, -1, 0, 0, 0, 0, 1, 1, 2], 7: [-3, -1, 0, 0, 0, 0, 1, 1, 2]}
    for levels, expected in wanted.items():
        assert quantize(cells, 3, 0.5, levels).reshape(-1).tolist() == expected


def test_one_level_is_no_guidance():
    guidance = load_guide("nowhere", layers=[0], grid=4, k=0.5, levels=1)
    assert guidance([np.zeros((8, 8, 3), np.uint8)] * 2) == [None, None]


def test_levels_on_the_border_stay_in_the_middle():
    # Mean 0, deviation 1, k = 1: the values are the borders themselves.
    assert quantize(attention([-1, 1], [1, -1]), 2, k=1).tolist() == [[[0, 0], [0, 0]]]
    assert quantize(attention([-1, 1], [1, -1]), 2, k=0.999).tolist() == [[[-1, 1], [1, -1]]]


def test_patches_are_averaged_into_cells():
    patches = torch.zeros(1, 8, 8)
    patches[0, 0:2, 2:4] = torch.tensor([[8.0, 0.0], [0.0, 0.0]])  # one cell of a 4 x 4 grid, mean 2
    levels = quantize(patches, 4)
    assert levels.shape == (1, 4, 4)
    assert levels.dtype == np.int8
    assert np.argwhere(levels[0] == 1).tolist() == [[0, 1]]
    assert (np.delete(levels.reshape(-1), 1) == 0).all()  # mean 1/8, deviation 0.48: zero is not below -0.24
    # A grid that does not divide the patches, and one cell, which is its own mean.
    assert quantize(torch.rand(2, 8, 8), 3).shape == (2, 3, 3)
    assert quantize(torch.rand(2, 8, 8), 1).tolist() == [[[0]], [[0]]]


def test_a_flat_map_is_all_middle():
    assert not quantize(torch.full((3, 8, 8), 0.7), 4).any()
    assert not quantize(torch.zeros(1, 8, 8), 8, k=0).any()


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100), st.floats(-10, 10), st.sampled_from([0.25, 0.75, 1.5]))
def test_levels_do_not_depend_on_scale_or_offset(seed, scale, offset, k):
    maps = torch.from_numpy(np.random.default_rng(seed).random((2, 8, 8)))
    levels = quantize(maps, 4, k)
    assert (quantize(maps * scale + offset, 4, k) == levels).all()
    assert (quantize(maps[1:], 4, k) == levels[1:]).all()  # every image by its own mean and deviation
    assert (quantize(-maps, 4, k) == -levels).all()
    cells = maps.reshape(2, 4, 2, 4, 2).mean((2, 4)).numpy()
    z = (cells - cells.mean((1, 2), keepdims=True)) / cells.std((1, 2), keepdims=True)
    assert (levels == (z > k).astype(int) - (z < -k).astype(int)).all()


def test_a_wider_middle_has_fewer_levels():
    maps = torch.from_numpy(np.random.default_rng(0).random((20, 8, 8)))
    counts = [np.count_nonzero(quantize(maps, 8, k)) for k in (0, 0.5, 1, 1.5, 3)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == 20 * 64
    assert counts[-1] == 0


class StandIn:
    """A tower whose attention is the brightness of every patch."""

    geometry = Geometry(mean=(0.0,) * 3, std=(1.0,) * 3, exact_size=(128, 128))

    def attention_map(self, pixels_B3HW, layers):
        assert pixels_B3HW.shape[1:] == (3, 128, 128)
        self.layers = tuple(layers)
        return torch.nn.functional.avg_pool2d(pixels_B3HW.mean(1), 16)


@pytest.mark.parametrize("size", [(128, 128), (300, 90), (40, 200)])
def test_cells_lie_over_the_whole_image_whatever_its_shape(size):
    width, height = size
    image = Image.new("RGB", size, (90, 90, 90))
    image.paste((250, 250, 250), (width // 2, 0, width, height // 2))  # upper right
    image.paste((0, 0, 0), (0, height // 2, width // 2, height))  # lower left
    tower = StandIn()
    expected = [[0, 1], [-1, 0]]
    (levels,) = guide(tower, [image], 2, scope="global")
    assert levels.tolist() == expected
    (levels,) = guide(tower, [np.asarray(image)], 2, layers=(1, 4), scope="global")
    assert levels.tolist() == expected
    assert tower.layers == (1, 4)
    assert guide(tower, [image], 4, scope="global")[0].tolist() == np.kron(expected, np.ones((2, 2))).tolist()


def test_the_settings_guidance_is_that_of_the_tower(tmp_path):
    folder = tiny_clip_folder(tmp_path)
    rng = np.random.default_rng(2)
    images = [rng.integers(0, 256, (128, 128, 3), dtype=np.uint8) for _ in range(3)]
    found = np.stack(load_guide(folder, layers=[0, 2], grid=4, k=0.5)(images))
    tower = load_tower(folder)
    maps = tower.cls_attention(tower.geometry.pixels(images), [0, 2])
    assert (found == quantize(maps, 4, 0.5)).all()
    assert np.abs(found).any()
    # One by one, and as the tower's own copy of the picture.
    singles = [guide(tower, [image], 4, 0.5, [0, 2])[0] for image in images]
    assert (found == np.stack(singles)).all()


def test_the_shipped_tower_raises_objects_more_often_than_background():
    """With the settings of params.yaml, cells that hold an object get higher levels than cells that hold none."""
    guidance = load().guidance
    scenes = [sample_scene(seed, "validation", "bench") for seed in range(24)]
    pictures = [render(scene) for scene in scenes]
    levels = load_guide(**guidance.model_dump() | {"tower": ROOT / guidance.tower})(pictures)
    levels = np.stack(levels)
    assert levels.shape == (24, guidance.grid, guidance.grid)
    assert {0, 1} <= set(np.unique(levels)) <= {-1, 0, 1}  # a tower that looks at little of the image lowers nothing
    masks = np.stack([object_mask(scene) for scene in scenes]).astype(bool)
    cell = masks.shape[-1] // guidance.grid
    over_pixels = levels.repeat(cell, 1).repeat(cell, 2)
    assert over_pixels[masks].mean() > over_pixels[~masks].mean() + 0.1


def patchwork(*rows):
    """An image of 128-pixel tiles of these greys, and in each tile's upper left quarter 40 more."""
    tiles = np.kron(np.array(rows), np.ones((128, 128)))
    tiles += np.kron(np.ones_like(rows), np.kron([[40, 0], [0, 0]], np.ones((64, 64))))
    return np.repeat(tiles[..., None], 3, 2).astype(np.uint8)


class Share(StandIn):
    """Attention as a softmax gives it: each tile's map sums to one."""

    def attention_map(self, pixels_B3HW, layers):
        maps = super().attention_map(pixels_B3HW, layers)
        return maps / maps.sum((1, 2), keepdim=True)


def test_local_sees_within_tiles_and_global_across_them():
    image, tower = patchwork([10, 200], [200, 10]), Share()
    (within,) = guide(tower, [image], 2, scope="local")
    # The dark tiles' bright quarters are most of what these tiles have; that others are brighter is not seen.
    assert within.tolist() == [[1, -1, 0, 0], [-1, -1, 0, 0], [0, 0, 1, -1], [0, 0, -1, -1]]
    (across,) = guide(tower, [image], 2, scope="global")
    assert across.tolist() == [[-1, 1], [1, -1]]
    (both,) = guide(tower, [image], 2, scope="hierarchical")
    assert both.shape == (4, 4)
    tiles = [image[:128, :128], image[:128, 128:], image[128:, :128], image[128:, 128:]]
    local_Thw = tower.attention_map(tower.geometry.pixels(tiles), (0,))
    mosaic_HW = torch.cat([torch.cat([*local_Thw[:2]], 1), torch.cat([*local_Thw[2:]], 1)])
    small = Image.fromarray(image).resize((128, 128), Image.Resampling.BICUBIC)
    whole_1hw = tower.attention_map(tower.geometry.pixels([small]), (0,))
    large_11HW = torch.nn.functional.interpolate(whole_1hw[:, None], (16, 16), mode="bilinear")
    assert (both == quantize(mosaic_HW + large_11HW[0], (4, 4))[0]).all()
    assert (both != within).any()


@pytest.mark.parametrize("scope", ["global", "local", "hierarchical"])
def test_one_tile_is_guided_alike_in_every_scope(tmp_path, scope):
    tower = load_tower(tiny_clip_folder(tmp_path))
    rng = np.random.default_rng(2)
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in [(128, 128), (180, 100), (64, 191)]]
    expected = guide(tower, images, 8)
    assert (np.stack(guide(tower, images, 8, scope=scope)) == expected).all()
    # Beside larger ones, too.
    large = rng.integers(0, 256, (300, 500, 3), dtype=np.uint8)
    found = guide(tower, [large, *images], 8, scope=scope)
    assert (np.stack(found[1:]) == expected).all()
    assert found[0].shape == ((8, 8) if scope == "global" else (16, 32))
    assert {-1, 0, 1} >= set(np.unique(found[0])) > {0}


def test_tiles_are_about_the_towers_size_and_a_map_has_room_for_them():
    assert tiles_of((336, 336), (336, 336), 8) == (1, 1)
    assert tiles_of((480, 640), (336, 336), 8) == (1, 2)
    assert tiles_of((1000, 336), (336, 336), 8) == (3, 1)
    assert tiles_of((40, 100_000), (128, 128), 8) == (1, 31)
    assert tiles_of((9000, 9000), (128, 128), 64) == (3, 3)


def test_a_hierarchical_map_goes_into_a_stream(tmp_path):
    from components.codec import Codec

    codec = Codec.from_pretrained(ROOT / "pretrained/codec/elic-micro")
    image = np.random.default_rng(5).integers(0, 256, (200, 400, 3), dtype=np.uint8)
    levels = load_guide(tiny_clip_folder(tmp_path), layers=[0, 1, 2], grid=8, k=0.75)([image])
    assert levels[0].shape == (16, 24)
    (decoded,) = codec.decode(codec.encode([image], 4, levels))
    assert decoded.image.shape == image.shape
    assert len(np.unique(decoded.level_map)) == 3
