"""Figures: the same bytes for the same numbers, ids that do not clash on one page, colours that the page decides."""

import re

import numpy as np
import pytest

from components.reporting import figures
from components.reporting.figures import Interval, Level, Line, Panel
from components.reporting.methods import COTAM, JPEG, LOOKS, method_look, method_order
from components.reporting.pictures import data_uri, heat, level_overlay, ramp_css
from components.reporting.swatches import swatch


def panels(count: int = 1) -> list[Panel]:
    lines = [Line(COTAM, [0.1, 0.2, 0.8], [70, 75, 80], [69, 74, 79], [71, 76, 81]), Line(JPEG, [0.2, 2.0], [60, 78])]
    return [Panel(f"Panel {index}", lines, "points", levels=[Level(82, "clean")]) for index in range(count)]


def test_equal_numbers_give_equal_bytes():
    assert figures.curves("a", "Title", panels()) == figures.curves("a", "Title", panels())


def test_two_figures_share_no_id():
    ids = [set(re.findall(r'id="([^"]+)"', figures.curves(name, "Title", panels(2)))) for name in ("one", "two")]
    assert ids[0]
    assert ids[0].isdisjoint(ids[1])


def test_every_reference_in_a_figure_is_in_it():
    svg = figures.curves("a", "Title", panels())
    assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', svg)) <= set(re.findall(r'id="([^"]+)"', svg))


def test_the_page_decides_the_colours_and_the_text_is_text():
    svg = figures.curves("a", 'A "title"', panels(2))
    assert not re.search(r"#[0-9a-f]{6}\b", svg)
    assert "var(--cotam)" in svg
    assert ">Panel 1<" in svg
    assert 'aria-label="A &quot;title&quot;"' in svg
    assert svg.count('data-curve="cotam"') == 2


@pytest.mark.parametrize("rates", [(0.11, 0.15), (0.05, 1.9)])
def test_a_log_axis_always_has_numbers(rates):
    svg = figures.curves("a", "Title", [Panel("P", [Line(COTAM, rates, [1, 2])])])
    assert len(re.findall(r">0\.\d+<", svg)) >= 2


def test_a_value_that_is_not_defined_is_said_so():
    rows = [Interval("MME", COTAM, -20.0, -25.0, -15.0), Interval("POPE", COTAM, None, None, None)]
    svg = figures.forest("a", "Title", rows, xlabel="BD-rate")
    assert "not defined" in svg
    assert ">POPE<" in svg


def test_every_series_has_a_colour_for_light_and_dark():
    css = figures.stylesheet()
    for look in LOOKS:
        assert css.count(f"--{look.key}:") == 2
    assert look.colour in swatch(look)


def test_methods_are_ordered_and_named():
    assert method_order({"jpeg", "elic", "bridge", "cotam"}, "elic") == ["cotam", "elic", "jpeg", "bridge"]
    assert method_look("elic", "elic").label == "ELIC"
    assert method_look("bridge", "elic").label == "bridge"


def test_an_overlay_tints_raised_and_lowered_regions():
    levels = np.array([[1, 0], [0, -1]])
    overlay = level_overlay(np.full((16, 16, 3), 128, np.uint8), levels)
    assert overlay.shape == (48, 48, 3)
    raised, neutral, lowered = overlay[8, 8], overlay[8, 40], overlay[40, 40]
    assert raised[0] > raised[2]
    assert len(set(neutral.tolist())) == 1
    assert lowered[2] > lowered[0]


def test_heat_grows_with_the_value_and_keeps_the_size():
    image = heat(np.array([[0.0, 5.0], [10.0, 20.0]]), top=10.0, size=(8, 6))
    assert image.shape == (8, 6, 3)
    lightness = image.astype(int).sum(-1)
    assert lightness[0, 0] < lightness[0, 5] < lightness[7, 0] == lightness[7, 5]
    assert ramp_css().count("#") == 7


def test_a_picture_is_a_png_inside_the_page():
    assert data_uri(np.zeros((2, 2, 3), np.uint8)).startswith("data:image/png;base64,iVBOR")
