"""Latent <-> bytes: the entropy model run exactly the same way on both sides.

Encoder and decoder must predict the same numbers to the bit, or everything after the first difference is noise. So
whatever lies between decoded symbols and the row of a frequency table is computed in integers (`exact_elic.py`), which
no order of summation can change; the encoder's own transforms are not, as what counts is what they made it code. The
checksum over the decoded latent remains, against damage.

`Wire` walks once through the latent (hyper latent, then group by group, anchors first). Where a symbol comes from, an
encoder's latent or a decoder's stream, is the only difference between the two directions.
"""

import zlib
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr
from torch import Tensor

from components.codec import level_map
from components.codec.architectures import AnyConfig, exact_entropy
from components.codec.config import HYPER_STRIDE
from components.codec.elic import Elic
from components.codec.entropy_model import anchors
from components.codec.exact_elic import FRACTION_BITS, ROWS
from components.codec.hyperprior import SMALLEST_SCALE
from components.codec.rans import ans
from components.errors import CotamError

FRACTION = 1 << FRACTION_BITS  # means are multiples of 1/64
SCALES = np.geomspace(SMALLEST_SCALE, 256, ROWS)
_TABLES_CHECK = 0x6AD64E72  # CRC-32 of the frequencies of all Gaussian rows, as docs/bitstream.md has it
TOTAL = 1 << 16  # of the frequencies in a row
PORTION = 1 << 20  # symbols
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
    """Frequency tables as CompressAI's coder takes them: the contexts of the level map, a codec's own, the Gaussians.

    Each row ends with a symbol of frequency zero, which is the coder's escape: no stream, however damaged, can reach
    it. That bounds what a decoder may read: one 32-bit word for every symbol.

    Rows are numbered from the first Gaussian on; a codec's own are before it, the last is -1.

    Args:
        own: frequencies of the codec's own rows, of symbols around 0, and so odd in number.

    Raises:
        CotamError: this machine's normal distribution is so wrong that other frequencies come out.
    """

    def __init__(self, own: Sequence[NDArray[np.int64]] = ()):
        gaussian_bounds, own_bounds = _bounds(), np.array([len(row) // 2 for row in own], np.int64)
        self.bounds = np.concatenate([gaussian_bounds, own_bounds])  # so that negative numbers find their own
        self.first = _LEVEL_ROWS + len(own)
        rows = [[0, *np.cumsum(row).tolist()] for row in level_map.FREQUENCIES]
        gaussians = [_gaussian_row(scale, bound) for scale, bound in zip(SCALES, gaussian_bounds, strict=True)]
        if zlib.crc32(np.concatenate([np.diff(row) for row in gaussians]).astype("<u4").tobytes()) != _TABLES_CHECK:
            raise CotamError("SciPy's normal distribution is not accurate on this machine; install another SciPy.")
        rows += [[0, *np.cumsum(row).tolist()] for row in own] + gaussians
        self.rows = [[*row, TOTAL] for row in rows]
        self.sizes = [len(row) for row in self.rows]
        self.offsets = [-1] * _LEVEL_ROWS + (-own_bounds).tolist() + (-gaussian_bounds).tolist()

    def upto(self, highest: int) -> tuple[list, list, list]:
        """Tables without the rows after `highest`: handing them to the coder copies them."""
        return self.rows[: highest + 1], self.sizes[: highest + 1], self.offsets[: highest + 1]


TABLES = Tables()
LEAST_BITS = float(np.log2(TOTAL / max(np.diff(row).max() for row in TABLES.rows[_LEVEL_ROWS:])))  # of a symbol


class Source(Protocol):
    """Gives the symbols (B, n) of the next part, given its means in 1/64 and the steps of its scales.

    All int64, on the CPU. An encoder also gives the values that are to be coded, float64.
    """

    def symbols(self, values_BN: Tensor | None, means_BN: Tensor, indexes_BN: Tensor) -> Tensor: ...


class Quantizer:
    """An encoder's source: rounds the latent around its means and keeps what it chose, to be written afterwards."""

    def __init__(self, tables: Tables = TABLES):
        self.tables = tables
        self.parts: list[tuple[NDArray, NDArray]] = []

    def symbols(self, values_BN: Tensor | None, means_BN: Tensor, indexes_BN: Tensor) -> Tensor:
        bounds = torch.from_numpy(self.tables.bounds)[indexes_BN]
        symbols = torch.round(values_BN - means_BN / FRACTION).clamp(-bounds, bounds).long()
        self.parts.append((symbols.numpy().astype(np.int16), indexes_BN.numpy().astype(np.int16)))
        return symbols

    def streams(self, levels: Sequence[NDArray[np.int8] | None]) -> list[bytes]:
        """One stream per image: its level map, then its latent."""
        symbols_BN, indexes_BN = (np.concatenate(parts, 1) for parts in zip(*self.parts, strict=True))
        return [
            write(symbols, indexes, grid, self.tables)
            for symbols, indexes, grid in zip(symbols_BN, indexes_BN, levels, strict=True)
        ]


def write(
    symbols_N: NDArray, indexes_N: NDArray, levels: NDArray[np.int8] | None, tables: Tables = TABLES
) -> bytes:
    """Entropy-code a level map and symbols whose scale steps are `indexes`."""
    coder = ans.BufferedRansEncoder()
    if levels is not None:
        coder.encode_with_indexes(
            levels.reshape(-1).tolist(), level_map.contexts(levels), *tables.upto(_LEVEL_ROWS - 1)
        )
    for part in _portions(len(symbols_N)):
        rows = indexes_N[part].astype(np.int64) + tables.first
        coder.encode_with_indexes(symbols_N[part].tolist(), rows.tolist(), *tables.upto(int(rows.max())))
    return coder.flush()


def _portions(count: int) -> Iterator[slice]:
    """What is handed to the coder at once: its lists take thirty times the room of an array."""
    return (slice(start, start + PORTION) for start in range(0, count, PORTION))


class Reader:
    """A decoder's source: one coder per image. Call `levels` once, first, then `symbols` in coding order.

    Raises:
        CotamError: a payload is shorter than that many symbols can be, so that a few bytes never announce a huge image.
    """

    def __init__(
        self, payloads: Sequence[bytes], symbols: int, grid: tuple[int, int] | None, tables: Tables = TABLES
    ):
        self.tables = tables
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
        own = self.tables
        tables = [([own.rows[k]], [own.sizes[k]], [-1]) for k in range(_LEVEL_ROWS)]
        return [
            level_map.read(self._grid, lambda k, coder=coder: coder.decode_stream([0], *tables[k])[0])
            for coder in self._coders
        ]

    def symbols(self, values_BN: Tensor | None, means_BN: Tensor, indexes_BN: Tensor) -> Tensor:
        rows_BN = (indexes_BN + self.tables.first).numpy()
        symbols_BN = torch.empty(rows_BN.shape, dtype=torch.int64)
        for coder, rows_N, symbols_N in zip(self._coders, rows_BN, symbols_BN, strict=True):
            for part in _portions(len(rows_N)):
                rows = rows_N[part]
                decoded = coder.decode_stream(rows.tolist(), *self.tables.upto(int(rows.max())))
                symbols_N[part] = torch.tensor(decoded, dtype=torch.int64)
        return symbols_BN


def symbol_count(config: AnyConfig, size: tuple[int, int]) -> int:
    """Symbols of an image whose latent has this size."""
    height, width = size
    hyper = -(-height // HYPER_STRIDE) * -(-width // HYPER_STRIDE)
    return height * width * config.latent_channels + hyper * config.hyper_channels


class Wire:
    """The exact half of a codec.

    Args:
        model: the networks, on `device`.
        device: where the entropy model runs.
    """

    def __init__(self, model: Elic, device: torch.device | str = "cpu"):
        self.model, self.config = model, model.config
        self.exact = exact_entropy(model, device)
        self.tables = Tables(self.exact.own_rows) if self.exact.own_rows else TABLES

    def symbol_count(self, size: tuple[int, int]) -> int:
        """Symbols of an image whose latent has this size."""
        return symbol_count(self.config, size)

    @torch.inference_mode()
    def walk(self, source: Source, maps_BHW: Tensor, y_BCHW: Tensor | None = None) -> tuple[Tensor, list[bytes]]:
        """Code or decode the latents of a batch.

        Args:
            source: where symbols come from.
            maps_BHW: int64, quality of every latent position; on the wire's device, as is all that follows.
            y_BCHW: latent after its gain, for an encoder.

        Returns:
            The decoded latent (B, C, h, w), float32 and exact, before its inverse gain; and, for every image, the bytes
            that its checksum covers.
        """
        exact = self.exact
        means, rows = exact.hyper_prior(maps_BHW)
        z = next_part(source, self._hyper_latent(y_BCHW, maps_BHW), means, rows)
        side_BHWS = exact.side(z, maps_BHW)

        batch, height, width = maps_BHW.shape
        y = maps_BHW.new_zeros(batch, height * width, self.config.latent_channels, dtype=torch.int32)
        units_BHWC = torch.zeros(batch, height, width, self.config.latent_channels, dtype=torch.int32, device=y.device)
        values_BPC = None if y_BCHW is None else y_BCHW.permute(0, 2, 3, 1).flatten(1, 2)
        first = anchors(height, width, device=y.device).flatten()
        turns = [turn.nonzero()[:, 0] for turn in (first, ~first)]
        maps_BP = maps_BHW.flatten(1)
        for k in range(len(self.config.groups)):
            channels = self.model.entropy.group(k)
            known_BPF = exact.before(k, side_BHWS, units_BHWC[..., : channels.start]).flatten(1, 2)
            for turn, places in enumerate(turns):
                if len(places) == 0:
                    continue
                seen = units_BHWC[..., channels] if turn else None
                qualities = maps_BP[:, places]
                means, rows = exact.parameters_of(k, known_BPF[:, places], seen, qualities, channels)
                values = None if values_BPC is None else values_BPC[:, places, channels]
                found = next_part(source, values, means, rows)
                y[:, places, channels] = found.int()
                units_BHWC.flatten(1, 2)[:, places, channels] = exact.units(found, qualities, channels)
        y_CHW = y.transpose(1, 2).unflatten(2, (height, width))
        covered = [
            as_bytes(one_z) + as_bytes(one_y) for one_z, one_y in zip(z.permute(0, 3, 1, 2), y_CHW, strict=True)
        ]
        return y_CHW.float() / FRACTION, covered

    def _hyper_latent(self, y_BCHW: Tensor | None, maps_BHW: Tensor) -> Tensor | None:
        """What an encoder would like z to be, (B, h, w, Cz), one by one: floats may depend on the batch."""
        if y_BCHW is None:
            return None
        entropy, gain = self.model.entropy, self.model.latent_gain
        found = []
        for y_1CHW, map_1HW in zip(y_BCHW.split(1), maps_BHW.split(1), strict=True):
            unit_1CHW = y_1CHW / (gain.at(map_1HW) * entropy.spread())
            found.append(entropy.hyper_latent(unit_1CHW, map_1HW))
        return torch.cat(found).permute(0, 2, 3, 1)


def next_part(source: Source, values: Tensor | None, means: Tensor, rows: Tensor) -> Tensor:
    """The next decoded part, in 1/64, from tensors (B, ..., C) whose order in the stream is channel, place."""

    def lined(part: Tensor) -> Tensor:
        return part.flatten(1, -2).transpose(1, 2).flatten(1).cpu()

    symbols_BN = source.symbols(None if values is None else lined(values).double(), lined(means), lined(rows))
    symbols = symbols_BN.unflatten(1, (means.shape[-1], -1)).transpose(1, 2).reshape(means.shape)
    return FRACTION * symbols.to(means.device) + means


def as_bytes(values: Tensor) -> bytes:
    """Multiples of 1/64 as little-endian 32-bit integers."""
    return values.cpu().numpy().astype("<i4").tobytes()
