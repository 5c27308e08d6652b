"""DCAE's latent <-> bytes, in float64 (`wire.py` is ELIC's, in integers).

Encoder and decoder must predict the same numbers to the bit. DCAE's attention has sums, exponentials and divisions that
are not computed in integers here. They run in float64 on the CPU, whatever runs the transforms; means and residuals are
then rounded to 1/64 and scales to one of 64 rows: what is left of the arithmetic's own rounding is a million times
smaller than what could change a rounded value. If it ever does, the checksum over the decoded latent says so.
"""

import copy

import torch
from torch import Tensor

from components.codec.dcae import Dcae
from components.codec.exact_elic import LARGEST_MEAN, PREDICTION_BITS, rows_of
from components.codec.hyperprior import SMALLEST_SCALE
from components.codec.learned_density import learned_rows
from components.codec.tables import FRACTION, TABLES, Tables
from components.codec.wire import Source, as_bytes, next_part, symbol_count
from components.errors import CotamError


class DcaeWire:
    """The half of a DCAE that both sides run alike.

    Args:
        model: the networks; their weights are read once.

    Raises:
        CotamError: a weight is not finite.
    """

    def __init__(self, model: Dcae):
        self.entropy = copy.deepcopy(model.entropy).cpu().double().eval()
        self.gain = copy.deepcopy(model.latent_gain).cpu().double()
        self.config = model.config
        if not all(p.isfinite().all() for part in (self.entropy, self.gain) for p in part.parameters()):
            raise CotamError("The codec's weights are damaged: one is infinite; copy them again.")
        self.tables = TABLES
        if model.entropy.density is not None:  # z has rows of its own, numbered from -Cz to -1
            self.centers_C = _to_fraction(model.entropy.density.medians.detach().cpu().double().flatten())
            self.tables = Tables(learned_rows(model.entropy.density, self.centers_C.numpy(), FRACTION))

    def symbol_count(self, size: tuple[int, int]) -> int:
        """Symbols of an image whose latent has this size."""
        return symbol_count(self.config, size)

    @torch.inference_mode()
    def walk(self, source: Source, maps_BHW: Tensor, y_BCHW: Tensor | None = None) -> tuple[Tensor, list[bytes]]:
        """Code or decode the latents of a batch; see `Wire.walk`."""
        entropy, device = self.entropy, maps_BHW.device
        maps_BHW, y_BCHW = maps_BHW.cpu(), None if y_BCHW is None else y_BCHW.cpu().double()
        to_unit = 1 / (self.gain.at(maps_BHW) * entropy.spread())
        values = None if y_BCHW is None else entropy.hyper_latent(y_BCHW * to_unit, maps_BHW)
        z = _next(source, values, *self._hyper_prior(maps_BHW))
        side_BSHW = entropy.side(z / FRACTION, maps_BHW)

        y = maps_BHW.new_zeros(len(maps_BHW), self.config.latent_channels, *maps_BHW.shape[1:])  # in 1/64
        unit = torch.zeros(y.shape, dtype=torch.float64)  # in units of spread, as the networks read it
        for k in range(len(self.config.groups)):
            channels = entropy.group(k)
            step = to_unit[:, channels]  # of the rounding, in units
            support = entropy.support(side_BSHW, unit, k)
            mean, scale = entropy.parameters_of(k, support)
            values = None if y_BCHW is None else y_BCHW[:, channels]
            found = _next(source, values, _to_fraction(mean / step), _rows(scale / step))
            residual = entropy.residual(k, support, found / FRACTION * step)
            y[:, channels] = found + _to_fraction(residual)
            unit[:, channels] = y[:, channels] / FRACTION * step
        covered = [as_bytes(one_z) + as_bytes(one_y) for one_z, one_y in zip(z, y, strict=True)]
        return (y.float() / FRACTION).to(device), covered

    def _hyper_prior(self, maps_BHW: Tensor) -> tuple[Tensor, Tensor]:
        """Means in 1/64 and rows of z, int64 (B, Cz, h, w)."""
        if self.entropy.density is None:
            means, scales = self.entropy.hyper_prior(maps_BHW)
            return _to_fraction(means), _rows(scales)
        shape = self.entropy.hyper_map(maps_BHW).shape
        channels = torch.arange(-len(self.centers_C), 0)
        size = (shape[0], -1, *shape[1:])
        return self.centers_C[None, :, None, None].expand(size), channels[None, :, None, None].expand(size)


def _next(source: Source, values_BCHW: Tensor | None, means_BCHW: Tensor, rows_BCHW: Tensor) -> Tensor:
    """`next_part` for channels first."""
    lined = (None if part is None else part.permute(0, 2, 3, 1) for part in (values_BCHW, means_BCHW, rows_BCHW))
    return next_part(source, *lined).permute(0, 3, 1, 2)


def _to_fraction(values: Tensor) -> Tensor:
    return torch.round(values * FRACTION).clamp(-LARGEST_MEAN, LARGEST_MEAN).long()


def _rows(scales: Tensor) -> Tensor:
    return rows_of(torch.round(scales.clamp(SMALLEST_SCALE, 1e6).log() * (1 << PREDICTION_BITS)).long())
