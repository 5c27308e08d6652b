"""Pixels equal the image processors', and the latent meets the same patches as the pixels do."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import CLIPImageProcessor, LlavaImageProcessor

from components.errors import CotamError
from components.vision import Geometry

CROP = {"height": 128, "width": 128}
PROCESSORS = {
    "shipped": CLIPImageProcessor(size={"shortest_edge": 128}, crop_size=CROP),
    "exact size": CLIPImageProcessor(size={"height": 128, "width": 128}, do_center_crop=False),
    "bilinear": CLIPImageProcessor(size={"shortest_edge": 160}, crop_size=CROP, resample=2),
    "crop wider than image": CLIPImageProcessor(size={"shortest_edge": 100}, crop_size=CROP),
    "padded square": LlavaImageProcessor(size={"shortest_edge": 128}, crop_size=CROP, do_pad=True),
}
SIZES = [(128, 128), (200, 150), (97, 301), (64, 64), (333, 128)]


def _image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_are_bitwise_those_of_the_processor(name):
    processor = PROCESSORS[name]
    geometry = Geometry.from_processor(processor)
    for size in SIZES:
        image = _image(*size)
        expected = processor(images=image, return_tensors="pt").pixel_values
        assert torch.equal(geometry.pixels([image]), expected), size


def test_pil_modes_and_mixed_sizes_batch():
    geometry = Geometry.from_processor(PROCESSORS["shipped"])
    images = [Image.fromarray(_image(140, 130)).convert(mode) for mode in ("RGB", "L", "P")]
    in_rgb = [image.convert("RGB") for image in images]
    expected = PROCESSORS["shipped"](images=in_rgb, return_tensors="pt").pixel_values
    assert torch.equal(geometry.pixels(images), expected)
    mixed = geometry.pixels([*images, _image(128, 128)])
    assert torch.equal(mixed[:3], expected)
    assert mixed.shape == (4, 3, 128, 128)


def test_float_images_agree_and_carry_gradients():
    geometry = Geometry.from_processor(PROCESSORS["shipped"])
    image = _image(128, 128)
    x_B3HW = (torch.from_numpy(image).permute(2, 0, 1)[None] / 255).requires_grad_()
    pixels_B3HW = geometry.transform(x_B3HW)
    torch.testing.assert_close(pixels_B3HW, geometry.pixels([image]))
    pixels_B3HW.sum().backward()
    assert (x_B3HW.grad > 0).all()


def test_read_from_a_folder(tmp_path):
    PROCESSORS["padded square"].save_pretrained(tmp_path)
    assert Geometry.from_pretrained(tmp_path) == Geometry.from_processor(PROCESSORS["padded square"])
    with pytest.raises(CotamError, match=r"preprocessor_config\.json"):
        Geometry.from_pretrained(tmp_path / "empty")


def test_unknown_steps_are_refused():
    with pytest.raises(CotamError, match="longest_edge"):
        Geometry.from_processor(CLIPImageProcessor(size={"shortest_edge": 128, "longest_edge": 256}))
    with pytest.raises(CotamError, match="normalise"):
        Geometry.from_processor(CLIPImageProcessor(do_normalize=False))


def test_a_latent_of_the_towers_own_size_passes_unchanged():
    geometry = Geometry.from_processor(PROCESSORS["shipped"])
    latent_BCHW = torch.randn(2, 5, 8, 8)
    torch.testing.assert_close(geometry.sample_latent(latent_BCHW, (128, 128), (8, 8)), latent_BCHW)


@pytest.mark.parametrize("name", PROCESSORS)
@settings(max_examples=20)
@given(height=st.integers(120, 400), width=st.integers(120, 400))
def test_the_latent_falls_where_the_pixels_do(name, height, width):
    """A map that grows linearly over the image, sampled as a latent, equals the ramp image's mean over each patch."""
    geometry = Geometry.from_processor(PROCESSORS[name])
    ys, xs = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    ramp_B3HW = torch.stack([ys / height, xs / width, torch.ones_like(xs)])[None] * 0.8 + 0.1
    neutral = Geometry(**{**vars(geometry), "mean": (0.0,) * 3, "std": (1.0,) * 3})
    seen_B3hw = torch.nn.functional.avg_pool2d(neutral.transform(ramp_B3HW), 16)

    stride = 16
    rows, cols = -(-height // stride), -(-width // stride)
    latent_ys = (torch.arange(rows) + 0.5) * stride / height
    latent_xs = (torch.arange(cols) + 0.5) * stride / width
    latent_y, latent_x = torch.meshgrid(latent_ys, latent_xs, indexing="ij")
    latent_BCHW = torch.stack([latent_y, latent_x, torch.ones_like(latent_x)])[None] * 0.8 + 0.1
    sampled_B3hw = neutral.sample_latent(latent_BCHW, (height, width), (8, 8), stride)

    # Where a patch sees only image (third channel: no padding), the two ramps agree but for clamping at the edges.
    whole = ((seen_B3hw[:, 2] - 0.9).abs() < 0.01) & ((sampled_B3hw[:, 2] - 0.9).abs() < 0.01)
    assert whole.sum() >= 4
    error = (seen_B3hw - sampled_B3hw).abs().amax(1)[whole]
    assert error.max() < 0.8 * stride / min(height, width)
    inner = (seen_B3hw[:, :2] > 0.2).all(1) & (seen_B3hw[:, :2] < 0.8).all(1) & whole
    if inner.any():
        assert (seen_B3hw - sampled_B3hw).abs().amax(1)[inner].max() < 0.01


def test_what_the_tower_sees_of_padding_is_zero():
    geometry = Geometry.from_processor(PROCESSORS["padded square"])
    sampled_BCHW = geometry.sample_latent(torch.ones(1, 1, 8, 16), (128, 256), (8, 8))
    assert (sampled_BCHW[0, 0, :2] == 0).all()
    assert (sampled_BCHW[0, 0, 2:6] == 1).all()
    assert (sampled_BCHW[0, 0, 6:] == 0).all()


def test_a_finer_latent_is_averaged_over_each_patch():
    geometry = Geometry.from_processor(PROCESSORS["shipped"])
    latent_BCHW = torch.randn(1, 3, 16, 16)
    expected = torch.nn.functional.avg_pool2d(latent_BCHW, 2)
    torch.testing.assert_close(geometry.sample_latent(latent_BCHW, (256, 256), (8, 8)), expected)


def test_patches_that_do_not_fill_the_image_are_where_the_convolution_has_them():
    """SigLIP at 384 pixels: 27 patches of 14 pixels, and 6 pixels that no patch sees."""
    geometry = Geometry(mean=(0.0,) * 3, std=(1.0,) * 3, exact_size=(384, 384))
    size = (768, 960)
    ys, xs = torch.meshgrid(*[(torch.arange(extent) + 0.5) / extent for extent in size], indexing="ij")
    seen_B3hw = torch.nn.functional.avg_pool2d(geometry.transform(torch.stack([ys, xs, ys])[None]), 14)
    centres = [(torch.arange(extent // 16) + 0.5) * 16 / extent for extent in size]
    rows, columns = torch.meshgrid(*centres, indexing="ij")
    sampled_B3hw = geometry.sample_latent(torch.stack([rows, columns, rows])[None], size, (27, 27))
    torch.testing.assert_close(sampled_B3hw, seen_B3hw, atol=0.004, rtol=0)
