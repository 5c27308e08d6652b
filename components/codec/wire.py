"""Latent <-> bytes: the entropy model run exactly the same way on both sides.

Encoder and decoder must predict the same numbers to the bit, or everything after the first difference is noise. So the
networks of the entropy model run in float64 here, means are rounded to 1/64, and scales to one of 64 steps: what is
left of the arithmetic's own rounding is a million times smaller than what could change a rounded value. If it ever
does, the checksum over the decoded latent says so.

`Wire` walks once through the latent (hyper latent, then group by group, anchors first). Where a symbol comes from, an
encoder's latent or a decoder's stream, is the only difference between the two directions.
"""

import copy
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from compressai import ans
from numpy.typing import NDArray
from scipy.special import ndtr
from torch import Tensor

from components.codec import level_map
from components.codec.config import HYPER_STRIDE
from components.codec.elic import Elic
from components.codec.entropy_model import SMALLEST_SCALE, anchors
from components.errors import CotamError

FRACTION = 64  # means are multiples of 1/64
SCALES = np.geomspace(SMALLEST_SCALE, 256, 64)
TOTAL = 1 << 16  # of the frequencies in a row
_LEVEL_ROWS = len(level_map.FREQUENCIES)


def _bounds() -> NDArray[np.int64]:
    """The largest symbol of each scale; an encoder clips to it, so that no escape codes are needed."""
    return np.ceil(8 * SCALES).astype(np.int64) + 7


def _gaussian_row(scale: float, bound: int) -> list[int]:
    """Cumulative frequencies of the symbols -bound .. bound, each at least 1."""
    symbols = np.arange(-bound, bound + 1)
    chances = ndtr((symbols + 0.5) / scale) - ndtr((symbols - 0.5) / scale)
    frequencies = np.floor(chances * (TOTAL - len(symbols))).astype(np.int64) + 1
    frequencies[bound] += TOTAL - frequencies.sum()
    return [0, *np.cumsum(frequencies).tolist()]


class Tables:
    """Frequency tables as CompressAI's coder takes them: the contexts of the level map, then the Gaussians.

    Each row ends with a symbol of frequency zero, which is the coder's escape: no stream, however damaged, can reach
    it. That bounds what a decoder may read: one 32-bit word for every symbol.
    """

    def __init__(self):
        self.bounds = _bounds()
        rows = [[0, *np.cumsum(row).tolist()] for row in level_map.FREQUENCIES]
        rows += [_gaussian_row(scale, bound) for scale, bound in zip(SCALES, self.bounds, strict=True)]
        self.rows = [[*row, TOTAL] for row in rows]
        self.sizes = [len(row) for row in self.rows]
        self.offsets = [-1] * _LEVEL_ROWS + (-self.bounds).tolist()

    def upto(self, highest: int) -> tuple[list, list, list]:
        """Tables without the rows after `highest`: handing them to the coder copies them."""
        return self.rows[: highest + 1], self.sizes[: highest + 1], self.offsets[: highest + 1]


TABLES = Tables()
LEAST_BITS = float(np.log2(TOTAL / max(np.diff(row).max() for row in TABLES.rows[_LEVEL_ROWS:])))  # of a symbol


def scale_indexes(scale: Tensor) -> Tensor:
    """The step of `SCALES` nearest in ratio, int64; float64 in."""
    first, last = float(SCALES[0]), float(SCALES[-1])
    ratio = (len(SCALES) - 1) / float(np.log(last / first))
    return torch.round(torch.log(scale.clamp(first, last) / first) * ratio).long()


class Source(Protocol):
    """Gives the symbols (B, n) of the next part, whose means (float64) and scale steps (int64) are (B, n)."""

    def symbols(self, values_BN: Tensor | None, means_BN: Tensor, indexes_BN: Tensor) -> Tensor: ...


class Quantizer:
    """An encoder's source: rounds the latent around its means and keeps what it chose, to be written afterwards."""

    def __init__(self):
        self.parts: list[tuple[NDArray, NDArray]] = []

    def symbols(self, values_BN: Tensor | None, means_BN: Tensor, indexes_BN: Tensor) -> Tensor:
        bounds = torch.from_numpy(TABLES.bounds)[indexes_BN]
        symbols = torch.round(values_BN - means_BN).clamp(-bounds, bounds)
        self.parts.append((symbols.long().numpy(), indexes_BN.numpy()))
        return symbols

    def streams(self, levels: Sequence[NDArray[np.int8] | None]) -> list[bytes]:
        """One stream per image: its level map, then its latent."""
        symbols_BN, indexes_BN = (np.concatenate(parts, 1) for parts in zip(*self.parts, strict=True))
        return [
            write(symbols, indexes, grid) for symbols, indexes, grid in zip(symbols_BN, indexes_BN, levels, strict=True)
        ]


def write(symbols_N: NDArray, indexes_N: NDArray, levels: NDArray[np.int8] | None) -> bytes:
    """Entropy-code a level map and symbols whose scale steps are `indexes`."""
    symbols, rows = symbols_N.tolist(), (indexes_N + _LEVEL_ROWS).tolist()
    if levels is not None:
        symbols = levels.reshape(-1).tolist() + symbols
        rows = level_map.contexts(levels) + rows
    return ans.RansEncoder().encode_with_indexes(symbols, rows, *TABLES.upto(max(rows)))


class Reader:
    """A decoder's source: one coder per image. Call `levels` once, first, then `symbols` in coding order.

    Raises:
        CotamError: a payload is shorter than that many symbols can be, so that a few bytes never announce a huge image.
    """

    def __init__(self, payloads: Sequence[bytes], symbols: int, grid: tuple[int, int] | None):
        if 8 * min(map(len, payloads)) < symbols * LEAST_BITS:
            raise CotamError("The stream is damaged: it is too short for the size that it names; copy it again.")
        # A damaged stream ends early; what is read beyond its end is then zeros, and the checksum fails.
        cells = 0 if grid is None else grid[0] * grid[1]
        self._coders = [ans.RansDecoder() for _ in payloads]
        for coder, payload in zip(self._coders, payloads, strict=True):
            coder.set_stream(payload + bytes(4 * (symbols + cells)))
        self._grid = grid

    def levels(self) -> list[NDArray[np.int8] | None]:
        """The level map of each image."""
        if self._grid is None:
            return [None] * len(self._coders)
        tables, maps = TABLES.upto(_LEVEL_ROWS - 1), []
        for coder in self._coders:
            levels = np.zeros(self._grid, np.int8)
            for row, column in np.ndindex(*self._grid):
                levels[row, column] = coder.decode_stream([level_map.context(levels, row, column)], *tables)[0]
            maps.append(levels)
        return maps

    def symbols(self, values_BN: Tensor | None, means_BN: Tensor, indexes_BN: Tensor) -> Tensor:
        rows_BN = (indexes_BN + _LEVEL_ROWS).numpy()
        decoded = [
            coder.decode_stream(rows_N.tolist(), *TABLES.upto(int(rows_N.max())))
            for coder, rows_N in zip(self._coders, rows_BN, strict=True)
        ]
        return torch.tensor(decoded, dtype=torch.float64)


class Wire:
    """The exact half of a codec: its entropy model in float64."""

    def __init__(self, model: Elic):
        self.entropy = copy.deepcopy(model.entropy).double().eval()
        self.gain = copy.deepcopy(model.latent_gain).double()
        self.config = model.config

    def symbol_count(self, size: tuple[int, int]) -> int:
        """Symbols of an image whose latent has this size."""
        height, width = size
        hyper = -(-height // HYPER_STRIDE) * -(-width // HYPER_STRIDE)
        return height * width * self.config.latent_channels + hyper * self.config.hyper_channels

    @torch.inference_mode()
    def walk(self, source: Source, maps_BHW: Tensor, y_BCHW: Tensor | None = None) -> tuple[Tensor, list[bytes]]:
        """Code or decode the latents of a batch.

        Args:
            source: where symbols come from.
            maps_BHW: int64, quality of every latent position.
            y_BCHW: latent after its gain, for an encoder.

        Returns:
            The decoded latent (B, C, h, w), float32 and exact, before its inverse gain; and, for every image, the bytes
            that its checksum covers.
        """
        entropy = self.entropy
        size = maps_BHW.shape[-2:]
        gain = self.gain.at(maps_BHW)
        to_unit = 1 / (gain * entropy.spread())
        y_BCHW = None if y_BCHW is None else y_BCHW.double()
        z_BCHW = None if y_BCHW is None else entropy.hyper_latent(y_BCHW * to_unit, maps_BHW).flatten(1)

        means, scales = entropy.hyper_prior(maps_BHW)
        z_means = _to_fraction(means)
        z_symbols = source.symbols(z_BCHW, z_means.flatten(1), scale_indexes(scales).flatten(1))
        z_hat = z_symbols.unflatten(1, means.shape[1:]) + z_means
        side_BSHW = entropy.side(z_hat, maps_BHW)

        first = anchors(*size)
        y_hat = torch.zeros(len(maps_BHW), self.config.latent_channels, *size, dtype=torch.float64)
        unit = torch.zeros_like(y_hat)  # the same in units of spread, as the contexts read it
        for k in range(len(self.config.groups)):
            channels = entropy.group(k)
            scale_of = 1 / to_unit[:, channels]
            known = entropy.before(k, side_BSHW, unit)
            for turn in (first, ~first):
                seen = unit[:, channels] * first if turn is not first else None
                mean, log_scale = entropy.parameters_of(k, known, seen)
                means = _to_fraction(mean * scale_of)[:, :, turn]
                steps = scale_indexes(log_scale.clamp(-9, 5).exp() * scale_of)[:, :, turn]
                values = None if y_BCHW is None else y_BCHW[:, channels][:, :, turn].flatten(1)
                symbols = source.symbols(values, means.flatten(1), steps.flatten(1)) if means.numel() else means
                y_hat[:, channels, turn] = symbols.reshape(means.shape) + means
                unit[:, channels] = y_hat[:, channels] * to_unit[:, channels]
        covered = [_as_bytes(z) + _as_bytes(y) for z, y in zip(z_hat, y_hat, strict=True)]
        return y_hat.float(), covered


def _to_fraction(means: Tensor) -> Tensor:
    return torch.round(means * FRACTION) / FRACTION


def _as_bytes(values: Tensor) -> bytes:
    """Multiples of 1/64 as little-endian 32-bit integers."""
    return (values * FRACTION).numpy().astype("<i4").tobytes()
