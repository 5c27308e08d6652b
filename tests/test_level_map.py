"""The guidance map: where its cells fall, what it costs, and that it survives the entropy coder."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from components.codec import level_map
from components.codec.guidance import guide
from components.codec.tables import TABLES
from components.codec.wire import Reader, write
from components.errors import CotamError
from components.paths import ROOT
from components.scenes import render, sample_scene
from components.vision import load_tower
from tests import spec_decoder

grids = arrays.arrays(np.int8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(-1, 1))
TAIL = np.zeros(8, np.int64)  # a latent's symbols, which follow every map


@given(grids)
def test_a_map_survives_the_coder(levels):
    payload = write(TAIL, TAIL, levels, TABLES)
    reader = Reader([payload, payload], len(TAIL), levels.shape, TABLES)
    for found in reader.levels():
        assert found.dtype == np.int8
        assert (found == levels).all()


@given(grids)
def test_a_map_costs_what_is_said(levels):
    """Coded forty times over, so that the whole words of a stream do not hide the cost."""
    tiled = np.tile(levels, (20, 2))
    spent = 8 * (len(write(TAIL, TAIL, tiled, TABLES)) - len(write(TAIL, TAIL, None, TABLES)))
    assert abs(spent - level_map.cost_bits(tiled)) <= 32 + 0.001 * spent


def test_contexts_are_those_of_the_document():
    """The left plus the upper level, 0 to 2; once a -1 has come, 5 more. Outside counts as 0."""
    levels = np.array([[1, 0, 0], [1, 1, 0], [-1, 1, 1], [-1, -1, 0]], np.int8)
    assert level_map.contexts(levels) == [0, 1, 0, 1, 1, 1, 1, 5, 6, 4, 5, 5]


@given(grids)
def test_encoder_and_decoder_agree_on_contexts(levels):
    drawn, asked = iter(levels.reshape(-1).tolist()), []
    found = level_map.read(levels.shape, lambda context: asked.append(context) or next(drawn))
    assert (found == levels).all()
    assert asked == level_map.contexts(levels)


def test_frequencies_are_those_of_the_document():
    text = (ROOT / "docs/bitstream.md").read_text()
    table = re.findall(r"^\| (no|yes) \| (-?\d) \| (\d+) \| (\d+) \| (\d+) \|$", text, re.M)
    places = [("no", total) for total in range(3)] + [("yes", total) for total in range(-2, 3)]
    rows = dict(zip(places, level_map.FREQUENCIES, strict=True))
    assert {(lowered, int(total)): tuple(map(int, row)) for lowered, total, *row in table} == rows
    assert {(place[0] == "yes", place[1]): row for place, row in rows.items()} == spec_decoder.LEVEL_ROWS


def test_every_row_of_frequencies_is_whole_and_leaves_no_level_out():
    for row in level_map.FREQUENCIES:
        assert sum(row) == 65536
        assert min(row) >= 1024


def test_an_even_map_is_cheap_and_any_map_is_short():
    assert level_map.cost_bits(np.zeros((8, 8), np.int8)) < 32
    assert level_map.cost_bits(np.zeros((4, 4), np.int8)) < 16
    rng = np.random.default_rng(0)
    for levels in [np.indices((8, 8)).sum(0) % 2 * 2 - 1, *rng.integers(-1, 2, (50, 8, 8))]:
        assert level_map.cost_bits(levels.astype(np.int8)) <= 64 * 6


def test_real_maps_cost_at_most_half_of_what_the_paper_spends():
    """2 bits a cell there; `cotam bench map` measures more of them."""
    tower = load_tower(ROOT / "pretrained/clip/micro")
    scenes = [render(sample_scene(seed, "test", "bench")) for seed in range(16)]
    for grid in (4, 8):
        bits = [level_map.cost_bits(levels) for levels in guide(tower, scenes, grid)]
        assert np.mean(bits) <= 1.5 * grid**2 if grid == 4 else np.mean(bits) <= grid**2


def test_cells_lie_on_positions_as_the_document_says():
    example = re.search(r"8 cells on 21 positions.*?\n\n +([0-9 ]+)\n", (ROOT / "docs/bitstream.md").read_text(), re.S)
    expected = [int(cell) for cell in example.group(1).split()]
    assert [(2 * i + 1) * 8 // 42 for i in range(21)] == expected
    # One column of eight cells, told apart one at a time.
    for cell in range(8):
        levels = np.zeros((8, 1), np.int8)
        levels[cell] = 1
        found = level_map.quality_map(4, (21, 3), levels, 10)
        assert (found == np.array([4 + (at == cell) for at in expected])[:, None]).all()


@given(grids, st.tuples(st.integers(1, 30), st.integers(1, 30)), st.integers(0, 9))
def test_a_position_has_the_quality_of_the_cell_around_its_centre(levels, size, quality):
    found = level_map.quality_map(quality, size, levels, 10)
    assert found.shape == size
    assert found.dtype == np.int64
    rows, columns = levels.shape
    for r in range(size[0]):
        for c in range(size[1]):
            # Half-open cells: [k / rows, (k + 1) / rows).
            row = max(k for k in range(rows) if k * 2 * size[0] <= (2 * r + 1) * rows)
            column = max(k for k in range(columns) if k * 2 * size[1] <= (2 * c + 1) * columns)
            assert found[r, c] == min(max(quality + levels[row, column], 0), 9)


def test_without_a_map_the_quality_is_everywhere():
    assert (level_map.quality_map(7, (3, 2), None, 10) == np.full((3, 2), 7)).all()


def test_qualities_end_at_the_ends():
    up, down = np.ones((1, 1), np.int8), -np.ones((1, 1), np.int8)
    assert level_map.quality_map(9, (1, 1), up, 10).item() == 9
    assert level_map.quality_map(0, (1, 1), down, 10).item() == 0
    assert level_map.quality_map(2, (1, 1), up, 3).item() == 2


def test_what_is_no_map_is_refused():
    assert level_map.check(np.array([[1, 0, -1]])).dtype == np.int8
    for wrong in (np.array([[4]]), np.array([[0.5]]), np.zeros((3, 0)), np.zeros((256, 2)), np.zeros(3)):
        with pytest.raises(CotamError, match="level map"):
            level_map.check(wrong)


shapes = arrays.array_shapes(min_dims=2, max_dims=2, max_side=12)
wide_grids = arrays.arrays(np.int8, shapes, elements=st.integers(-3, 3))


@given(wide_grids)
def test_a_map_of_seven_levels_survives_the_coder_and_costs_what_is_said(levels):
    steps = level_map.steps_of(levels)
    tiled = np.tile(levels, (20, 2))
    payload, nothing = (write(TAIL, TAIL, grid, TABLES) for grid in (tiled, None))
    [found] = Reader([payload], len(TAIL), tiled.shape, TABLES, steps).levels()
    assert (found == tiled).all()
    spent = 8 * (len(payload) - len(nothing))
    assert abs(spent - level_map.cost_bits(tiled)) <= 32 + 0.001 * spent


@given(wide_grids)
def test_levels_further_from_zero_come_after_the_signs(levels):
    coded, rows = level_map.symbols(levels)
    signs, sizes = np.sign(levels), np.abs(levels)
    assert coded[: levels.size] == signs.reshape(-1).tolist()
    assert rows[: levels.size] == level_map.contexts(signs)
    assert len(coded) == levels.size + sum((sizes >= step).sum() for step in range(1, level_map.steps_of(levels)))
    assert set(rows[levels.size :]) <= {level_map.FURTHER}
