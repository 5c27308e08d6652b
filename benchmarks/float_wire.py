"""The wire as other learned codecs have it: the entropy model in floating point. A yardstick for `exactness.py`.

The networks are the very modules that were trained. What it predicts is rounded as the exact wire rounds, means to
1/64 and scales to 64 steps; but encoder and decoder must round the same sums, and floats promise nothing of the kind.
"""

import copy

import numpy as np
import torch
from torch import Tensor

from components.codec.codec import Codec
from components.codec.entropy_model import anchors
from components.codec.tables import SCALES
from components.codec.wire import Source, Wire


def as_float(codec: Codec, dtype: torch.dtype) -> Codec:
    """The same codec with a wire that computes in `dtype`; the transforms are shared."""
    other = copy.copy(codec)
    other.wire = FloatWire(codec, dtype)
    return other


class FloatWire(Wire):
    """Means and scales from networks that compute in floats.

    Args:
        codec: whose networks they are.
        dtype: float32, as others do it, or float64, where disagreement is rare.
    """

    def __init__(self, codec: Codec, dtype: torch.dtype):
        self.model, self.config, self.dtype, self.tables = codec.model, codec.config, dtype, codec.wire.tables
        self.entropy = copy.deepcopy(codec.model.entropy).to(dtype)
        self.gain = copy.deepcopy(codec.model.latent_gain).to(dtype)

    @torch.inference_mode()
    def walk(self, source: Source, maps_BHW: Tensor, y_BCHW: Tensor | None = None) -> tuple[Tensor, list[bytes]]:
        """As `Wire.walk`."""
        entropy, size = self.entropy, maps_BHW.shape[-2:]
        gain = self.gain.at(maps_BHW)
        to_unit = 1 / (gain * entropy.spread())
        z_BHWC = self._hyper_latent(y_BCHW, maps_BHW)
        means, scales = entropy.hyper_prior(maps_BHW)
        z_values = None if z_BHWC is None else z_BHWC.permute(0, 3, 1, 2).flatten(1)
        z_hat = _decode(source, z_values, means.flatten(1), scales.flatten(1)).reshape(means.shape)
        side_BSHW = entropy.side(z_hat, maps_BHW)

        first = anchors(*size, device=maps_BHW.device)
        y_hat = torch.zeros_like(gain)
        unit = torch.zeros_like(y_hat)
        for k in range(len(self.config.groups)):
            channels = entropy.group(k)
            known = entropy.before(k, side_BSHW, unit)
            for turn in (first, ~first):
                seen = unit[:, channels] * first if turn is not first else None
                mean, log_scale = entropy.parameters_of(k, known, seen)
                means = (mean / to_unit[:, channels])[:, :, turn]
                scales = (log_scale.clamp(-9, 5).exp() / to_unit[:, channels])[:, :, turn]
                values = None if y_BCHW is None else y_BCHW[:, channels][:, :, turn].flatten(1)
                if means.numel():
                    found = _decode(source, values, means.flatten(1), scales.flatten(1))
                    y_hat[:, channels, turn] = found.reshape(means.shape)
                unit[:, channels] = y_hat[:, channels] * to_unit[:, channels]
        covered = [
            (source.tables.fraction * torch.cat([z.flatten(), y.flatten()])).cpu().numpy().astype("<i4").tobytes()
            for z, y in zip(z_hat, y_hat, strict=True)
        ]
        return y_hat.float(), covered


def _decode(source: Source, values_BN: Tensor | None, means_BN: Tensor, scales_BN: Tensor) -> Tensor:
    means = torch.round(means_BN * source.tables.fraction).long().cpu()
    first, last = float(SCALES[0]), float(SCALES[-1])
    ratio = (len(SCALES) - 1) / float(np.log(last / first))
    rows = torch.round(torch.log(scales_BN.clamp(first, last) / first) * ratio).long().cpu()
    symbols = source.symbols(None if values_BN is None else values_BN.double().cpu(), means, rows)
    return (symbols + means / source.tables.fraction).to(means_BN)
