"""What the codecs have in common: analysis and synthesis transforms with gains per location (paper, A.3).

The strided convolutions form a linear chain in float32; branches (residual blocks, attention, Swin blocks) add to it.
Only those additions may run in bfloat16 (`VariableRate.fast`, for training on machines that have it): at the highest
quality the chain itself needs more than bfloat16's eight bits. A branch adds nothing until it has learned something, so
that `start.py` can start a codec as a block transform.
"""

from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor, nn

from components.codec.config import CodecConfig, DcaeConfig
from components.codec.gains import Gain


def half(channels_in: int, channels_out: int, kernel: int) -> nn.Conv2d:
    """Convolution that halves height and width exactly."""
    return nn.Conv2d(channels_in, channels_out, kernel, stride=2, padding=(kernel - 1) // 2)


def double(channels_in: int, channels_out: int, kernel: int) -> nn.ConvTranspose2d:
    """Transposed convolution that doubles height and width exactly."""
    padding, extra = (kernel - 1) // 2, kernel % 2
    return nn.ConvTranspose2d(channels_in, channels_out, kernel, stride=2, padding=padding, output_padding=extra)


class Bottleneck(nn.Sequential):
    """ELIC's residual bottleneck: 1x1, 3x3, 1x1; adds nothing until it has learned something."""

    def __init__(self, channels: int):
        middle = channels // 2
        last = nn.Conv2d(middle, channels, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        super().__init__(
            nn.Conv2d(channels, middle, 1), nn.ReLU(), nn.Conv2d(middle, middle, 3, padding=1), nn.ReLU(), last
        )


class Branches(nn.Module):
    """Features to which each branch adds in turn."""

    def __init__(self, branches: Iterable[nn.Module]):
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.fast = False

    def forward(self, x_BCHW: Tensor) -> Tensor:
        for branch in self.branches:
            with torch.autocast(x_BCHW.device.type, torch.bfloat16, enabled=self.fast):
                added = branch(x_BCHW)
            x_BCHW = x_BCHW + added.float()
        return x_BCHW


class VariableRate(nn.Module):
    """A codec's networks. Images are float32 in [0, 1], height and width multiples of 16 (`Codec` pads).

    The quality map has one int64 entry, 0 to 9, per latent position: (B, H/16, W/16). A subclass says what refines the
    features at every resolution, and sets `entropy`, its entropy model.
    """

    entropy: nn.Module
    centre = 0.5  # of the images' values: what the transforms call zero

    def __init__(self, config: CodecConfig | DcaeConfig):
        super().__init__()
        self.config = config
        chain = (3, *config.widths, config.latent_channels)
        ones = torch.ones(config.qualities, dtype=torch.float64)
        # The quantization step that suits lambda in an orthonormal transform: d(step^2/36)/dR = lambda at 6 dB per bit.
        steps = (26 * torch.tensor(config.lambdas, dtype=torch.float64)).sqrt()

        stages = range(len(config.widths))
        links = list(pairwise(chain))  # channels of the finer and of the coarser side
        self.down = nn.ModuleList(half(fine, coarse, config.kernel) for fine, coarse in links)
        self.analysis = nn.ModuleList(self.refine_analysis(stage) for stage in stages)
        self.analysis_gain = nn.ModuleList(Gain(w, ones) for w in config.widths)
        self.latent_gain = Gain(config.latent_channels, 1 / steps)

        self.latent_inverse = Gain(config.latent_channels, steps)
        self.up = nn.ModuleList(double(coarse, fine, config.kernel) for fine, coarse in reversed(links))
        self.synthesis_inverse = nn.ModuleList(Gain(w, ones) for w in config.widths[::-1])
        self.synthesis = nn.ModuleList(self.refine_synthesis(stage) for stage in reversed(stages))

    def refine_analysis(self, stage: int) -> Branches:
        """What refines the encoder's features at 1/2 (stage 0), 1/4, 1/8 of the image's size."""
        raise NotImplementedError

    def refine_synthesis(self, stage: int) -> Branches:
        """The same for the decoder's features."""
        raise NotImplementedError

    def fast(self, enabled: bool) -> None:
        """Let branches run in bfloat16 (training only)."""
        for module in self.modules():
            if isinstance(module, Branches):
                module.fast = enabled

    def analyse(self, x_B3HW: Tensor, quality_map_BHW: Tensor) -> Tensor:
        """Image -> latent after its gain, (B, C, H/16, W/16)."""
        features = x_B3HW - self.centre
        for down, refine, gain in zip(self.down, self.analysis, self.analysis_gain, strict=False):
            features = gain(refine(down(features)), quality_map_BHW)
        return self.latent_gain(self.down[-1](features), quality_map_BHW)

    def ungain(self, y_hat_BCHW: Tensor, quality_map_BHW: Tensor) -> Tensor:
        """Decoded latent -> what the synthesis and the adapter read (inverse gain applied)."""
        return self.latent_inverse(y_hat_BCHW, quality_map_BHW)

    def synthesize(self, latent_BCHW: Tensor, quality_map_BHW: Tensor) -> Tensor:
        """Latent after the inverse gain -> image, not clipped, (B, 3, 16h, 16w)."""
        features = latent_BCHW
        for up, gain, refine in zip(self.up, self.synthesis_inverse, self.synthesis, strict=False):
            features = refine(gain(up(features), quality_map_BHW))
        return self.up[-1](features) + self.centre

    def forward(self, x_B3HW: Tensor, quality_map_BHW: Tensor) -> dict:
        """One training pass.

        Returns:
            x_hat (B, 3, H, W), not clipped; likelihoods {"y", "z"}; y_hat (B, C, h, w) after the inverse gain.
        """
        y_BCHW = self.analyse(x_B3HW, quality_map_BHW)
        gain_BCHW = self.latent_gain.at(quality_map_BHW)
        y_hat_BCHW, likelihoods = self.entropy(y_BCHW, gain_BCHW, quality_map_BHW)
        latent_BCHW = self.ungain(y_hat_BCHW, quality_map_BHW)
        return {
            "x_hat": self.synthesize(latent_BCHW, quality_map_BHW),
            "likelihoods": likelihoods,
            "y_hat": latent_BCHW,
        }
