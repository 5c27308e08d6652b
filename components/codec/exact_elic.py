"""ELIC's entropy model in integers: what `entropy_model.py` trains in floats, as encoder and decoder run it.

The same pieces with the same names. The latent is in units of 2**-f here, whatever it is predicted from in units of
2**-10 of each channel's spread, and a prediction is a mean in 2**-f and the row of a frequency table. f is 6, and
weights have eight bits; with `fine_entropy` in the codec's configuration it is 10, and weights have sixteen. All of it
is written down in docs/bitstream.md.
"""

import torch
from torch import Tensor

from components.codec.config import HYPER_STRIDE
from components.codec.elic import Elic
from components.codec.exact import BITS, Doubling, Taps, activation, exp_fixed, fixed, product, shift
from components.codec.products import DIGIT, TWO_DIGITS

FRACTION_BITS = 6  # the latent and its means are multiples of 1/64 ...
FINE_FRACTION_BITS = 10  # ... or of 1/1024
PREDICTION_BITS = 14  # of means and log scales in units of spread, and of all logarithms
UNIT_BITS = 16  # of factors from units of spread to the latent
INVERSE_BITS = 24  # of factors back
LARGEST_MEAN = 1 << 22  # in 2**-f: with a symbol added, float32 still holds it exactly
LARGEST_LOG = 1 << 22  # of units, in 2**-14
ROWS = 64  # of the table of scales

# Row of a scale s: 63 ln(s / 0.11) / ln(256 / 0.11), its factor in 2**-20, ln 0.11 in 2**-14.
_ROWS_PER_E_FOLD = 8521212
_FIRST_LOG = -36164
_ROW_SHIFT = 20 + PREDICTION_BITS


def rows_of(log_scales: Tensor) -> Tensor:
    """Rows of scales whose natural logarithms are given in 2**-14; int64 in and out."""
    return shift((log_scales - _FIRST_LOG) * _ROWS_PER_E_FOLD, _ROW_SHIFT).clamp(0, ROWS - 1)


class ExactElic:
    """The decoder's half of ELIC's entropy model.

    Args:
        model: the networks; their weights are read once.
        device: where to compute. The integers do not depend on it.

    Raises:
        CotamError: weights that cannot be computed with exactly.
    """

    own_rows = ()  # z is Gaussian, too

    def __init__(self, model: Elic, device: torch.device | str = "cpu"):
        entropy, self.config = model.entropy, model.config
        self.device = torch.device(device)
        self.fraction_bits = FINE_FRACTION_BITS if self.config.fine_entropy else FRACTION_BITS
        bits = {"largest": TWO_DIGITS if self.config.fine_entropy else DIGIT}
        first, _, second, _, last = entropy.hyper_synthesis
        doublings = (Doubling(layer, relu=True, **bits) for layer in (first, second))
        self.hyper_synthesis = (*doublings, Taps.of(last, **bits))
        self.channel_context = [Taps.of(layer, relu=True, **bits) for layer, _ in entropy.channel_context]
        self.spatial_context = [
            Taps.of(layer, mask=lambda y, x: (y + x) % 2 == 1, **bits) for layer in entropy.spatial_context
        ]
        self.aggregation = [
            (product(first, relu=True, **bits), product(last, out_bits=PREDICTION_BITS, **bits))
            for first, _, last in entropy.aggregation
        ]
        layers = (*self.hyper_synthesis, *self.channel_context, *self.spatial_context, *sum(self.aggregation, ()))
        for layer in layers:
            layer.to(self.device)

        def logs(values: Tensor) -> Tensor:
            return fixed(values, PREDICTION_BITS).clamp(-LARGEST_LOG, LARGEST_LOG)

        log_unit_QC = entropy.log_spread_C.detach().double() + model.latent_gain.log_QC.detach().double()
        self.log_unit_QC = self._here(logs(log_unit_QC))
        self.unit_QC = self._here(exp_fixed(log_unit_QC, UNIT_BITS))
        self.inverse_QC = self._here(exp_fixed(-log_unit_QC, INVERSE_BITS))
        self.hyper_inverse_QC = self._here(exp_fixed(-entropy.hyper_gain.log_QC, INVERSE_BITS))
        hyper_means = fixed(entropy.hyper_mean_QC, self.fraction_bits)
        self.hyper_mean_QC = self._here(hyper_means.clamp(-LARGEST_MEAN, LARGEST_MEAN))
        self.hyper_row_QC = self._here(rows_of(logs(entropy.hyper_log_scale_QC)))
        self.quality_side_QS = self._here(fixed(entropy.quality_side_QS, BITS))

    def _here(self, table: Tensor) -> Tensor:
        return table.to(self.device)

    def hyper_map(self, quality_map_BHW: Tensor) -> Tensor:
        """Quality of each hyper position: that of its first latent position; (B, ceil(h/4), ceil(w/4))."""
        return quality_map_BHW[:, ::HYPER_STRIDE, ::HYPER_STRIDE]

    def hyper_prior(self, quality_map_BHW: Tensor) -> tuple[Tensor, Tensor]:
        """Means in 2**-f and rows of z, int64 (B, h, w, Cz), given only the quality of each place."""
        places = self.hyper_map(quality_map_BHW)
        return self.hyper_mean_QC[places], self.hyper_row_QC[places]

    def side(self, z_BHWC: Tensor, quality_map_BHW: Tensor) -> Tensor:
        """Side information (B, h, w, S) for the latent, from the decoded z in 2**-f and the qualities."""
        height, width = quality_map_BHW.shape[-2:]
        inverse = self.hyper_inverse_QC[self.hyper_map(quality_map_BHW)]
        features = self._units(z_BHWC, inverse)
        for layer in self.hyper_synthesis:
            features = layer(features)
        return activation(features[:, :height, :width] + self.quality_side_QS[quality_map_BHW])

    def units(self, y: Tensor, qualities: Tensor, channels: slice) -> Tensor:
        """Decoded latents in 2**-f (..., channels) in units of spread, given the qualities (...) of their places."""
        return self._units(y, self.inverse_QC[:, channels][qualities])

    def before(self, k: int, side_BHWS: Tensor, units_BHWC: Tensor) -> Tensor:
        """What is known of group k before any of it is decoded; `units` of the groups before."""
        if k == 0:
            return side_BHWS
        return torch.cat([side_BHWS, self.channel_context[k - 1](units_BHWC)], -1)

    def parameters_of(
        self, k: int, before_BPF: Tensor, anchors_BHWG: Tensor | None, qualities_BP: Tensor, channels: slice
    ) -> tuple[Tensor, Tensor]:
        """Means in 2**-f and rows of group k at the anchors (`anchors` None), or elsewhere, given the anchors.

        Args:
            k: the group; `channels` are its.
            before_BPF: what is known, at these places.
            anchors_BHWG: the group in units of spread, zeros where nothing is decoded yet.
            qualities_BP: of these places.
        """
        known = before_BPF
        if anchors_BHWG is not None:
            known = torch.cat([before_BPF, self.spatial_context[k].at(anchors_BHWG, parity=1)], -1)
        first, last = self.aggregation[k]
        mean, log_scale = last(first(known)).long().chunk(2, -1)
        means = shift(mean * self.unit_QC[:, channels][qualities_BP], PREDICTION_BITS + UNIT_BITS - self.fraction_bits)
        lowest, highest = -9 << PREDICTION_BITS, 5 << PREDICTION_BITS
        log_scales = log_scale.clamp(lowest, highest) + self.log_unit_QC[:, channels][qualities_BP]
        return means.clamp(-LARGEST_MEAN, LARGEST_MEAN), rows_of(log_scales)

    def _units(self, y: Tensor, inverse: Tensor) -> Tensor:
        return activation(shift(y * inverse, self.fraction_bits + INVERSE_BITS - BITS))
