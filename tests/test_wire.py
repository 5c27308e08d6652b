"""The entropy coder: symbols survive it, its tables are those of the format, and no damage can hurt a reader."""

import re
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from components.codec import wire
from components.codec.exact_elic import rows_of
from components.codec.level_map import FREQUENCIES
from components.codec.tables import FRACTION, LEAST_BITS, SCALES, TABLES, Tables
from components.codec.wire import Quantizer, Reader, write
from components.errors import CotamError
from components.paths import ROOT
from tests.spec_decoder import Coder, gaussian_row

LEVEL_ROWS = len(FREQUENCIES)


@st.composite
def coded(draw):
    """Symbols with their scale steps, as an encoder gives them: inside each row's bounds, and at them."""
    steps = draw(st.lists(st.integers(0, 63), min_size=8, max_size=60))
    symbols = [draw(st.integers(-int(TABLES.bounds[j]), int(TABLES.bounds[j]))) for j in steps]
    return np.array(symbols), np.array(steps)


def read(payload, steps):
    indexes = torch.from_numpy(np.array(steps))[None]
    return Reader([payload], len(steps), None, TABLES).symbols(None, torch.zeros_like(indexes), indexes)[0].numpy()


@given(coded())
def test_symbols_survive_the_coder(part):
    symbols, steps = part
    assert (read(write(symbols, steps, None, TABLES), steps) == symbols).all()


def test_portions_are_one_stream(monkeypatch):
    rng = np.random.default_rng(2)
    steps = rng.integers(0, 64, 500)
    symbols = np.round(rng.normal(0, SCALES[steps])).astype(int).clip(-TABLES.bounds[steps], TABLES.bounds[steps])
    levels = rng.integers(-1, 2, (6, 7)).astype(np.int8)
    whole = write(symbols, steps, levels, TABLES)
    monkeypatch.setattr(wire, "PORTION", 33)
    assert write(symbols, steps, levels, TABLES) == whole
    reader = Reader([whole, whole], len(steps), levels.shape, TABLES)
    indexes = torch.from_numpy(np.stack([steps, steps]))
    assert all((found == levels).all() for found in reader.levels())
    assert (reader.symbols(None, torch.zeros(indexes.shape), indexes).numpy() == symbols).all()


@given(coded())
def test_the_coder_is_the_one_of_the_document(part):
    symbols, steps = part
    coder = Coder(write(symbols, steps, None, TABLES))
    found = [coder.symbol(gaussian_row(int(j))) - TABLES.bounds[j] for j in steps]
    assert found == symbols.tolist()
    assert coder.finished


def test_the_tables_are_those_of_the_document():
    text = (ROOT / "docs/bitstream.md").read_text()
    count, check = re.search(r"the (\d+) frequencies .*?CRC-32 `(\w+)`", text, re.S).groups()
    numbers = np.concatenate([np.diff(row[:-1]) for row in TABLES.rows[LEVEL_ROWS:]])
    assert len(numbers) == int(count)
    assert f"{zlib.crc32(numbers.astype('<u4').tobytes()):08x}" == check
    least = re.search(r"fewer bits than ([\d.]+) for every symbol", text).group(1)
    assert float(least) == pytest.approx(LEAST_BITS, abs=1e-6)


def test_every_row_is_whole_and_symmetric_and_its_escape_out_of_reach():
    for row, bound in zip(TABLES.rows[LEVEL_ROWS:], TABLES.bounds, strict=True):
        frequencies = np.diff(row)
        assert frequencies[-1] == 0  # the escape
        assert (frequencies[:-1] >= 1).all()
        assert frequencies.sum() == 65536
        assert len(frequencies) == 2 * bound + 2
        assert np.abs(frequencies[:-1] - frequencies[-2::-1]).max() <= 1


def test_a_row_spends_what_a_gaussian_costs():
    """Mean code length of rounded Gaussian samples, against their empirical entropy."""
    rng = np.random.default_rng(0)
    for j in (8, 24, 40, 56):
        symbols = np.round(rng.normal(0, SCALES[j], 20_000)).astype(int)
        chances = np.unique(symbols, return_counts=True)[1] / len(symbols)
        entropy = -(chances * np.log2(chances)).sum()
        spent = 8 * len(write(symbols, np.full(len(symbols), j), None, TABLES)) / len(symbols)
        assert entropy - 0.01 < spent < 1.02 * entropy + 0.02


def test_scales_fall_on_the_nearest_step():
    def rows(scales):
        return rows_of(torch.from_numpy(np.floor(np.log(scales) * 2**14 + 0.5)).long()).tolist()

    assert rows(SCALES) == list(range(64))
    ratio = (SCALES[1] / SCALES[0]) ** 0.499
    assert rows(SCALES[1:-1] * ratio) == list(range(1, 63))
    assert rows(SCALES[1:-1] / ratio) == list(range(1, 63))
    assert rows(np.array([1e-99, 1e-9, 1e9, 1e99])) == [0, 0, 63, 63]


def test_an_encoder_rounds_around_the_mean_and_stops_at_the_bounds():
    source = Quantizer(TABLES)
    values = torch.tensor([[2.3, 2.3, 1e6, -1e6, 0.5]]).double()
    means = torch.tensor([[0, 48, 0, 0, 0]])
    steps = torch.tensor([[30, 30, 0, 63, 5]])
    symbols = source.symbols(values, means, steps)
    assert symbols.tolist() == [[2, 2, TABLES.bounds[0], -TABLES.bounds[63], 0]]
    [payload] = source.streams([None])
    assert (read(payload, steps[0].numpy()) == symbols[0].numpy()).all()


def test_fractions_are_exact_in_float32():
    largest = TABLES.bounds[-1] * FRACTION
    assert np.float32(largest + 1) / FRACTION == (largest + 1) / FRACTION


@given(coded(), st.data())
def test_any_payload_reads_as_symbols_inside_the_bounds(part, data):
    """Damage, random words, an early end: a reader gets wrong symbols, never more than its rows hold."""
    _, steps = part
    payload = data.draw(st.binary(min_size=8, max_size=80).map(lambda b: b[: len(b) // 4 * 4]))
    found = read(payload, steps)
    assert len(found) == len(steps)
    assert (np.abs(found) <= TABLES.bounds[steps]).all()


@given(st.binary(min_size=8, max_size=40).map(lambda b: b[: len(b) // 4 * 4]))
def test_any_payload_reads_as_a_map(payload):
    [levels] = Reader([payload], 8, (5, 7), TABLES).levels()
    assert levels.shape == (5, 7)
    assert np.isin(levels, (-1, 0, 1)).all()


def test_a_stream_may_end_early_or_late():
    rng = np.random.default_rng(1)
    steps = rng.integers(0, 64, 400)
    symbols = np.round(rng.normal(0, SCALES[steps]) * 0.9).astype(int).clip(-TABLES.bounds[steps], TABLES.bounds[steps])
    payload = write(symbols, steps, None, TABLES)
    assert (read(payload + struct.pack("<I", 12345), steps) == symbols).all()
    cut = read(payload[: len(payload) // 8 * 4], steps)
    half = np.flatnonzero(cut != symbols)
    assert len(half) > 50  # wrong from where the words ended ...
    assert half[0] > 150  # ... and right before


def test_a_few_bytes_do_not_announce_a_huge_image():
    payload = write(np.zeros(20, int), np.zeros(20, int), None, TABLES)
    most = int(8 * len(payload) / LEAST_BITS)
    Reader([payload], most, None, TABLES)
    with pytest.raises(CotamError, match="too short"):
        Reader([payload], most + 1, None, TABLES)
    # What an encoder writes at its cheapest is never refused.
    many = np.zeros(300_000, int)
    assert (read(write(many, many, None, TABLES), many) == 0).all()


@given(st.integers(0, 2**32 - 1))
def test_fine_codecs_write_what_lies_beyond_a_row(seed):
    rng, tables = np.random.default_rng(seed), Tables(fine=True)
    steps = torch.from_numpy(rng.integers(0, 64, (2, 40)))
    bounds = torch.from_numpy(tables.bounds)[steps]
    beyond = torch.from_numpy(rng.integers(-12, 13, (2, 40)) * rng.choice([0, 1, 50, 511], (2, 40)))
    values, means = (bounds + beyond) * torch.from_numpy(rng.choice([-1.0, 1.0], (2, 40))), torch.full((2, 40), 256)
    source = Quantizer(tables)
    written = [source.symbols(values + 0.25, means, steps) for _ in range(2)]
    assert torch.equal(written[0], values.clamp(-bounds - 4095, bounds + 4095).long())
    reader = Reader(source.streams([None, None]), 80, None, tables)
    assert all(torch.equal(reader.symbols(None, means, steps), symbols) for symbols in written)


def test_any_payload_of_a_fine_codec_reads_as_numbers():
    rng, tables = np.random.default_rng(0), Tables(fine=True)
    steps = torch.full((1, 400), 63)
    for _ in range(20):
        reader = Reader([rng.bytes(400)], 400, None, tables)
        found = reader.symbols(None, torch.zeros_like(steps), steps)
        assert found.abs().max() <= tables.bounds[63] + 4095
