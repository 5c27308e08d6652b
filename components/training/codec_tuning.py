"""A codec that learns: its rate, differentiable; what a bit may cost; and streams that are real when it has learned.

The rate is that of the likelihoods under noise (Ballé et al. 2018; Minnen et al. 2018). What a bit costs is measured,
as a loss on features has other units than the squared error that the codec was made with: along the codec's qualities
the loss falls as the rate rises, and the slope -dL/dR is the price at which a quality stands where it is. Prices are
fitted as c lambda^g over the codec's own lambdas. At these prices learning improves a quality rather than moves it.
"""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from components.adapter.latent_adapter import Sampler
from components.codec.codec import Codec
from components.codec.transforms import VariableRate
from components.errors import CotamError
from components.training.loop import Examples

SAMPLE = 64  # training images that prices are measured on

Loss = Callable[[dict[str, Any], dict[str, Tensor]], tuple[Tensor, dict[str, Tensor]]]
"""(what `TunedCodec` returned, batch) -> the loss without the rate, and its named parts."""


class TunedCodec(nn.Module):
    """A codec's networks and, perhaps, a part that reads its decoded latents, in one training pass.

    Args:
        codec: only its parameters that require gradients learn.
        part: an adapter or a neck.
        picture: whether pictures are decoded.
        sample: as the part takes it.
    """

    def __init__(self, codec: VariableRate, part: nn.Module | None, picture: bool, sample: Sampler):
        super().__init__()
        self.codec = codec.to(memory_format=torch.channels_last)
        self.codec.fast(True)
        self.register_buffer("prices_Q", torch.zeros(codec.config.qualities))
        if part is not None:
            self.part = part
        self.picture, self.sample = picture, sample

    def forward(self, pixels_B3HW: Tensor, quality_map_BHW: Tensor) -> dict[str, Tensor]:
        """One pass.

        Returns:
            x_hat (B, 3, H, W), clipped, where pictures are decoded; y_hat (B, C, h, w); bpp, the mean rate; price, what
            the bits cost per pixel; said, what the part says.
        """
        codec = self.codec
        # The chain of strided convolutions needs float32; its branches run in bfloat16 (codec/transforms.py).
        with torch.autocast(pixels_B3HW.device.type, enabled=False):
            y_BCHW = codec.analyse(pixels_B3HW, quality_map_BHW)
            gain_BCHW = codec.latent_gain.at(quality_map_BHW)
            coded_BCHW, likelihoods = codec.entropy(y_BCHW, gain_BCHW, quality_map_BHW)
            latent_BCHW = codec.ungain(coded_BCHW, quality_map_BHW)
            out = {"y_hat": latent_BCHW} | self._rate(likelihoods, quality_map_BHW, pixels_B3HW[0, 0].numel())
            if self.picture:
                out["x_hat"] = codec.synthesize(latent_BCHW, quality_map_BHW).clamp(0, 1)
        if hasattr(self, "part"):
            out["said"] = self.part(latent_BCHW, quality_map_BHW, self.sample)
        return out

    def _rate(self, likelihoods: dict[str, Tensor], quality_map_BHW: Tensor, pixels: int) -> dict[str, Tensor]:
        maps = {"y": quality_map_BHW, "z": self.codec.entropy.hyper_map(quality_map_BHW)}
        bits = {name: -likelihoods[name].log2().sum(1) for name in maps}
        count = len(quality_map_BHW) * pixels
        return {
            "bpp": sum(bits[name].sum() for name in maps) / count,
            "price": sum((self.prices_Q[maps[name]] * bits[name]).sum() for name in maps) / count,
        }


def set_prices(model: TunedCodec, views: Examples, loss: Loss, factor: float, device: torch.device) -> None:
    """Measure what a bit may cost at each quality, times `factor`; 0: nothing.

    Args:
        views: training examples with pixels.
        loss: without the rate.

    Raises:
        CotamError: with more bits the loss does not fall, so that no price can be measured.
    """
    if factor == 0:
        return
    model.to(device).eval()
    numbers = views.order(0)[:SAMPLE]
    batch = {name: tensor.to(device) for name, tensor in views.batch(0, numbers).items()}
    rates, losses = [], []
    with torch.no_grad():
        for quality in range(model.codec.config.qualities):
            uniform_BHW = torch.full_like(batch["quality_map"], quality)
            out = model(batch["pixels"], uniform_BHW)
            rates.append(float(out["bpp"]))
            losses.append(float(loss(out, batch)[0]))
    prices_Q = fit_prices(np.array(rates), np.array(losses), np.array(model.codec.config.lambdas))
    model.prices_Q.copy_(torch.from_numpy(factor * prices_Q))
    model.train()


def fit_prices(rates_Q: np.ndarray, losses_Q: np.ndarray, lambdas_Q: np.ndarray) -> np.ndarray:
    """Prices c lambda^g (g >= 0) whose logarithms are nearest to those of the slopes between neighbouring qualities.

    Raises:
        CotamError: fewer than two slopes are falling.
    """
    slopes = -np.diff(losses_Q) / np.diff(rates_Q)
    between = np.log(lambdas_Q[1:] * lambdas_Q[:-1]) / 2
    falling = np.isfinite(slopes) & (slopes > 0)
    if falling.sum() < 2:
        raise CotamError("The loss does not fall as the rate rises, so a bit has no price; is this the right codec?")
    logs = np.log(slopes[falling])
    growth = max(0.0, np.polyfit(between[falling], logs, 1)[0])
    return np.exp(np.mean(logs - growth * between[falling]) + growth * np.log(lambdas_Q))


def trainable(codec: Codec) -> VariableRate:
    """A copy of a codec's networks that learns.

    Raises:
        CotamError: no training is written for this architecture.
    """
    if not isinstance(codec.model, VariableRate):
        name = codec.config.architecture
        raise CotamError(f"A codec of the architecture {name} has one rate and cannot be fine-tuned; name a micro one.")
    return copy.deepcopy(codec.model).requires_grad_(True).train()
