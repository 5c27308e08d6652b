"""Spatial-frequency modulation adapters in a codec's transforms: ICMH-adapt (Li et al., ECCV 2024).

Li et al., "Image compression for machine and human vision with spatial-frequency adaptation", put a small adapter at
each resolution of a frozen codec's encoder and decoder (their section 3). With x the features there, W 1 x 1
convolutions, K depthwise ones, F the Fourier transform over places and s the sigmoid:

    spatial    S(x) = W3 relu(K1(W1 x) * W2 x)
    frequency  Y = F(W4 x),  G(x) = W6 relu(F^-1(Y * s(W5 relu(K2 |Y|))))
    adapted    x + S(x) + G(x)

The gate acts on amplitudes alone; phases stay. Here W3 and W6 start at zero, so that a codec starts as it was, whatever
it is. A codec with adapters is an architecture of its own, so that it writes, reads and names its streams like any.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from components.codec.config import CodecConfig, DcaeConfig
from components.codec.dcae import Dcae
from components.codec.elic import Elic
from components.codec.transforms import VariableRate


class ModulatedElicConfig(CodecConfig):
    """Sizes of an ELIC with adapters of `modulation` channels."""

    architecture: Literal["elic-sfma"] = "elic-sfma"
    modulation: int = 16


class ModulatedDcaeConfig(DcaeConfig):
    """Sizes of a DCAE with adapters of `modulation` channels."""

    architecture: Literal["dcae-sfma"] = "dcae-sfma"
    modulation: int = 16


class Modulation(nn.Module):
    """One spatial-frequency modulation adapter on features of `channels` channels, `middle` inside."""

    def __init__(self, channels: int, middle: int):
        super().__init__()
        self.spatial_value = nn.Conv2d(channels, middle, 1)
        self.spatial_gate = nn.Conv2d(channels, middle, 1)
        self.spatial_around = nn.Conv2d(middle, middle, 5, padding=2, groups=middle)
        self.spatial_out = nn.Conv2d(middle, channels, 1)
        self.frequency_in = nn.Conv2d(channels, middle, 1)
        self.amplitude_around = nn.Conv2d(middle, middle, 3, padding=1, groups=middle)
        self.amplitude_gate = nn.Conv2d(middle, middle, 1)
        self.frequency_out = nn.Conv2d(middle, channels, 1)
        for last in (self.spatial_out, self.frequency_out):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Adapted features, of the same shape."""
        return x_BCHW + self.spatial(x_BCHW) + self.frequency(x_BCHW)

    def spatial(self, x_BCHW: Tensor) -> Tensor:
        """S(x)."""
        return self.spatial_out((self.spatial_around(self.spatial_value(x_BCHW)) * self.spatial_gate(x_BCHW)).relu())

    def frequency(self, x_BCHW: Tensor) -> Tensor:
        """G(x)."""
        spectrum_BMHw = torch.fft.rfft2(self.frequency_in(x_BCHW))
        gate_BMHw = self.amplitude_gate(self.amplitude_around(spectrum_BMHw.abs()).relu()).sigmoid()
        return self.frequency_out(torch.fft.irfft2(spectrum_BMHw * gate_BMHw, s=x_BCHW.shape[-2:]).relu())


class _Modulated(VariableRate):
    """Adapters after the encoder's refinement and before the decoder's, at 1/2, 1/4 and 1/8 of the image's size."""

    def __init__(self, config: ModulatedElicConfig | ModulatedDcaeConfig):
        super().__init__(config)
        widths = config.widths
        self.analysis_modulation = nn.ModuleList(Modulation(width, config.modulation) for width in widths)
        self.synthesis_modulation = nn.ModuleList(Modulation(width, config.modulation) for width in widths[::-1])

    def analyse(self, x_B3HW: Tensor, quality_map_BHW: Tensor) -> Tensor:
        """As without adapters."""
        features = x_B3HW - self.centre
        stages = zip(self.down, self.analysis, self.analysis_modulation, self.analysis_gain, strict=False)
        for down, refine, modulate, gain in stages:
            features = gain(modulate(refine(down(features))), quality_map_BHW)
        return self.latent_gain(self.down[-1](features), quality_map_BHW)

    def synthesize(self, latent_BCHW: Tensor, quality_map_BHW: Tensor) -> Tensor:
        """As without adapters."""
        features = latent_BCHW
        stages = zip(self.up, self.synthesis_inverse, self.synthesis_modulation, self.synthesis, strict=False)
        for up, gain, modulate, refine in stages:
            features = refine(modulate(gain(up(features), quality_map_BHW)))
        return self.up[-1](features) + self.centre


class ModulatedElic(_Modulated, Elic):
    """ELIC with adapters."""


class ModulatedDcae(_Modulated, Dcae):
    """DCAE with adapters."""


_MODULATED = {
    "elic": (ModulatedElicConfig, ModulatedElic),
    "dcae": (ModulatedDcaeConfig, ModulatedDcae),
}


def modulated(networks: VariableRate, channels: int) -> VariableRate:
    """A copy of a codec's networks with silent adapters of `channels` channels; only these require gradients.

    Raises:
        ValueError: no adapters are written for this architecture.
    """
    if networks.config.architecture not in _MODULATED:
        raise ValueError(f"there are no modulation adapters for the architecture {networks.config.architecture}")
    config, kind = _MODULATED[networks.config.architecture]
    sizes = networks.config.model_dump(exclude={"architecture"})
    copy = kind(config(**sizes, modulation=channels))
    copy.load_state_dict(networks.state_dict(), strict=False)
    for name, parameter in copy.named_parameters():
        parameter.requires_grad_("_modulation." in name)
    return copy
