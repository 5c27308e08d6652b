"""ICMH-adapt's adapters: their equations, a silent start, and a codec that writes and reads its own streams."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from components.codec import Codec
from components.codec.folder import load_codec, save_codec
from components.codec.modulation import Modulation, modulated
from components.errors import CotamError
from tests.small_checkout import TINY_DCAE, TINY_ELIC, scenes, tiny_codec_folder


def spoken(module: torch.nn.Module) -> None:
    """Give every adapter something to say."""
    generator = torch.Generator().manual_seed(3)
    for name, parameter in module.named_parameters():
        if "_out." in name:
            parameter.data = 0.05 * torch.randn(parameter.shape, generator=generator)


def test_its_equations():
    torch.manual_seed(0)
    adapter = Modulation(6, 4)
    spoken(adapter)
    x = torch.randn(2, 6, 8, 10)
    with torch.no_grad():
        a = adapter
        value = torch.nn.functional.conv2d(x, a.spatial_value.weight, a.spatial_value.bias)
        around = torch.nn.functional.conv2d(value, a.spatial_around.weight, a.spatial_around.bias, padding=2, groups=4)
        spatial = a.spatial_out(torch.relu(around * a.spatial_gate(x)))
        spectrum = np.fft.fft2(a.frequency_in(x).double().numpy())  # the whole one, not half
        amplitude, phase = np.abs(spectrum), np.angle(spectrum)
        half = torch.from_numpy(amplitude[..., : 10 // 2 + 1]).float()
        gate_half = torch.sigmoid(a.amplitude_gate(torch.relu(a.amplitude_around(half)))).numpy()
        gate = np.empty(amplitude.shape)
        gate[..., :6] = gate_half
        mirrored = np.roll(gate_half[..., ::-1, :], 1, axis=-2)  # the spectrum of something real
        gate[..., 6:] = mirrored[..., 4:0:-1]
        back = np.fft.ifft2(amplitude * gate * np.exp(1j * phase)).real
        frequency = a.frequency_out(torch.relu(torch.from_numpy(back).float()))
        assert torch.allclose(adapter.spatial(x), spatial, atol=1e-5)
        assert torch.allclose(adapter.frequency(x), frequency, atol=1e-5)
        assert torch.allclose(adapter(x), x + spatial + frequency, atol=1e-5)
        assert float((adapter(x) - x).abs().max()) > 1e-3


@pytest.mark.parametrize("config", [TINY_ELIC, TINY_DCAE], ids=["elic", "dcae"])
def test_it_starts_as_the_codec_and_writes_streams_of_its_own(tmp_path, config):
    plain_folder = tiny_codec_folder(tmp_path / "plain", config=config)
    plain = load_codec(plain_folder)
    networks = modulated(plain, 4)
    x, maps = torch.rand(2, 3, 64, 64), torch.randint(0, 10, (2, 4, 4))
    with torch.no_grad():
        y = plain.analyse(x, maps)
        assert torch.equal(networks.analyse(x, maps), y)
        assert torch.equal(networks.synthesize(y, maps), plain.synthesize(y, maps))
    learning = {name for name, parameter in networks.named_parameters() if parameter.requires_grad}
    assert learning and all("modulation" in name for name in learning)
    kept = networks.state_dict()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in plain.state_dict().items())

    spoken(networks)
    save_codec(tmp_path / "adapted", networks)
    codec, base = Codec.from_pretrained(tmp_path / "adapted", fast=None), Codec.from_pretrained(plain_folder)
    pictures = scenes(2)
    streams = codec.encode(pictures, 3)
    decoded = codec.decode(streams)
    for one, again in zip(decoded, codec.reconstruct(pictures, 3), strict=True):
        assert np.array_equal(one.image, again.image) and np.array_equal(one.latent, again.latent)
    unadapted = base.reconstruct(pictures, 3)
    assert any(not np.array_equal(one.image, other.image) for one, other in zip(decoded, unadapted, strict=True))
    with pytest.raises(CotamError, match="was made by codec"):
        base.decode(streams)


def test_other_architectures_have_none():
    other = SimpleNamespace(config=SimpleNamespace(architecture="elic2022"))
    with pytest.raises(ValueError, match="elic2022"):
        modulated(other, 4)
