"""A large latent in bands of rows: not one integer differs from the whole."""

import pytest
import torch

from components.codec import bands
from components.codec.bands import InBands
from components.codec.exact_elic import ExactElic
from components.codec.folder import load_codec
from tests.test_codec import tiny_codec_folder


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 1), (9, 1), (33, 1), (1, 7), (23, 11), (26, 12), (17, 5)])
def test_bands_say_what_the_whole_says(height, width, tmp_path, monkeypatch):
    monkeypatch.setattr(bands, "PLACES", 20)
    exact = ExactElic(load_codec(tiny_codec_folder(tmp_path)))
    cut = InBands(exact)
    made = torch.Generator().manual_seed(height * width)

    def numbers(*shape, most=3000):
        return torch.randint(-most, most, shape, generator=made)

    maps = torch.randint(0, 10, (2, height, width), generator=made)
    z = numbers(2, -(-height // 4), -(-width // 4), exact.config.hyper_channels, most=300)
    side = exact.side(z, maps)
    assert torch.equal(cut.side(z, maps), side)
    units = numbers(2, height, width, exact.config.latent_channels).int()
    parity = torch.arange(height)[:, None] + torch.arange(width) & 1
    for k, channels in enumerate((slice(0, 4), slice(4, 12), slice(12, 24))):
        known = exact.before(k, side, units[..., : channels.start])
        assert torch.equal(cut.before(k, side, units[..., : channels.start]), known)
        for turn in (0, 1):
            places = (parity == turn).flatten().nonzero()[:, 0]
            if len(places) == 0:
                continue
            arguments = known.flatten(1, 2)[:, places], units[..., channels] if turn else None
            expected = exact.parameters_of(k, *arguments, maps.flatten(1)[:, places], channels)
            found = cut.parameters_of(k, *arguments, maps.flatten(1)[:, places], channels)
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
