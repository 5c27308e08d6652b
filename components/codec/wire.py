"""Latent <-> bytes: the entropy model run exactly the same way on both sides.

Encoder and decoder must predict the same numbers to the bit, or everything after the first difference is noise. So
whatever lies between decoded symbols and the row of a frequency table is computed in integers (`exact_elic.py`), which
no order of summation can change; the encoder's own transforms are not, as what counts is what they made it code. The
checksum over the decoded latent remains, against damage.

`Wire` walks once through the latent (hyper latent, then group by group, anchors first). Where a symbol comes from, an
encoder's latent or a decoder's stream, is the only difference between the two directions.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.codec import escapes, level_map
from components.codec.architectures import AnyConfig, exact_entropy
from components.codec.config import HYPER_STRIDE
from components.codec.elic import Elic
from components.codec.entropy_model import anchors
from components.codec.rans import ans
from components.codec.tables import FRACTION, LEAST_BITS, LEVEL_ROWS, TABLES, Tables
from components.errors import CotamError

PORTION = 1 << 20  # symbols

Part = tuple[NDArray[np.int16], NDArray[np.int16]]
"""Symbols and their rows."""


class Source(Protocol):
    """Gives the symbols (B, n) of the next part, given its means and the steps of its scales.

    All int64, on the CPU, means in units of 1 / `tables.fraction`. An encoder also gives the values that are to be
    coded, float64.
    """

    tables: Tables

    def symbols(self, values_BN: Tensor | None, means_BN: Tensor, indexes_BN: Tensor) -> Tensor: ...


class Quantizer:
    """An encoder's source: rounds the latent around its means and keeps what it chose, to be written afterwards."""

    def __init__(self, tables: Tables):
        self.tables = tables
        self.parts: list[list[Part]] = []  # of each call, the symbols and rows of every image

    def symbols(self, values_BN: Tensor | None, means_BN: Tensor, indexes_BN: Tensor) -> Tensor:
        bounds = torch.from_numpy(self.tables.bounds)[indexes_BN]
        limits = bounds if self.tables.escape is None else bounds + escapes.LARGEST
        symbols = torch.round(values_BN - means_BN / self.tables.fraction).clamp(-limits, limits).long()
        self.parts.append([self._part(*image) for image in zip(symbols, indexes_BN, bounds, strict=True)])
        return symbols

    def _part(self, symbols_N: Tensor, indexes_N: Tensor, bounds_N: Tensor) -> Part:
        symbols, rows = symbols_N.numpy(), indexes_N.numpy()
        if self.tables.escape is not None:
            symbols, digits = escapes.split(symbols, bounds_N.numpy())
            symbols = np.concatenate([symbols, np.array(digits, np.int64)])
            rows = np.concatenate([rows, np.full(len(digits), self.tables.escape)])
        return symbols.astype(np.int16), rows.astype(np.int16)

    def streams(self, levels: Sequence[NDArray[np.int8] | None]) -> list[bytes]:
        """One stream per image: its level map, then its latent."""
        found = []
        for grid, parts in zip(levels, zip(*self.parts, strict=True), strict=True):
            symbols_N, indexes_N = map(np.concatenate, zip(*parts, strict=True))
            found.append(write(symbols_N, indexes_N, grid, self.tables))
        return found


def write(symbols_N: NDArray, indexes_N: NDArray, levels: NDArray[np.int8] | None, tables: Tables) -> bytes:
    """Entropy-code a level map and symbols whose scale steps are `indexes`."""
    coder = ans.BufferedRansEncoder()
    if levels is not None:
        coder.encode_with_indexes(*level_map.symbols(levels), *tables.upto(LEVEL_ROWS - 1))
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
        self, payloads: Sequence[bytes], symbols: int, grid: tuple[int, int] | None, tables: Tables, steps: int = 1
    ):
        self.tables, self._steps = tables, steps
        if 8 * min(map(len, payloads)) < symbols * LEAST_BITS:
            raise CotamError("The stream is damaged: it is too short for the size that it names; copy it again.")
        # A damaged stream ends early; what is read beyond its end is then zeros, and the checksum fails.
        cells = 0 if grid is None else grid[0] * grid[1] * steps
        symbols *= 1 if tables.escape is None else 2  # all digits of an escape take a word at most
        self._coders = [ans.RansDecoder() for _ in payloads]
        for coder, payload in zip(self._coders, payloads, strict=True):
            coder.set_stream(payload + bytes(4 * (symbols + cells)))
        self._grid = grid

    def levels(self) -> list[NDArray[np.int8] | None]:
        """The level map of each image."""
        if self._grid is None:
            return [None] * len(self._coders)
        own = self.tables
        tables = [([own.rows[k]], [own.sizes[k]], [-1]) for k in range(LEVEL_ROWS)]
        return [
            level_map.read(self._grid, lambda k, coder=coder: coder.decode_stream([0], *tables[k])[0], self._steps)
            for coder in self._coders
        ]

    def symbols(self, values_BN: Tensor | None, means_BN: Tensor, indexes_BN: Tensor) -> Tensor:
        rows_BN = (indexes_BN + self.tables.first).numpy()
        symbols_BN = torch.empty(rows_BN.shape, dtype=torch.int64)
        for coder, rows_N, symbols_N, indexes_N in zip(self._coders, rows_BN, symbols_BN, indexes_BN, strict=True):
            for part in _portions(len(rows_N)):
                rows = rows_N[part]
                decoded = coder.decode_stream(rows.tolist(), *self.tables.upto(int(rows.max())))
                symbols_N[part] = torch.tensor(decoded, dtype=torch.int64)
            if self.tables.escape is not None:
                self._extend(symbols_N.numpy(), self.tables.bounds[indexes_N.numpy()], coder)
        return symbols_BN

    def _extend(self, symbols_N: NDArray[np.int64], bounds_N: NDArray[np.int64], coder: ans.RansDecoder) -> None:
        row = self.tables.first + self.tables.escape
        table = [self.tables.rows[row]], [self.tables.sizes[row]], [self.tables.offsets[row]]
        escapes.join(symbols_N, bounds_N, lambda: coder.decode_stream([0], *table)[0])


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
        fine = 1 << self.exact.fraction_bits != FRACTION
        self.tables = Tables(self.exact.own_rows, fine) if fine or self.exact.own_rows else TABLES

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
        covered = [as_bytes(one_z) + as_bytes(one_y) for one_z, one_y in zip(z.permute(0, 3, 1, 2), y_CHW, strict=True)]
        return y_CHW.float() / self.tables.fraction, covered

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
    """The next decoded part, in units of the means, from tensors (B, ..., C); in the stream: by channel, then place."""

    def lined(part: Tensor) -> Tensor:
        return part.flatten(1, -2).transpose(1, 2).flatten(1).cpu()

    symbols_BN = source.symbols(None if values is None else lined(values).double(), lined(means), lined(rows))
    symbols = symbols_BN.unflatten(1, (means.shape[-1], -1)).transpose(1, 2).reshape(means.shape)
    return source.tables.fraction * symbols.to(means.device) + means


def as_bytes(values: Tensor) -> bytes:
    """Multiples of 1/64 (or 1/1024) as little-endian 32-bit integers."""
    return values.cpu().numpy().astype("<i4").tobytes()
