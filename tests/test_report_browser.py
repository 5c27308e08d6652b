"""The page in a real browser: what is drawn, that nothing fails and that nothing is fetched."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from components.evaluation.benchmarks import BENCHMARKS
from components.reporting import step_report
from components.reporting.collect import ROWS
from components.step_inputs import Params, StepInputs
from tests import browser
from tests.made_up_run import SETTINGS, write_run

pytestmark = browser.needed


class Elements(HTMLParser):
    """Every start tag with its attributes, and the page's text."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    def of(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of a whole made-up run, as the report step writes it."""
    paths = write_run(tmp_path_factory.mktemp("checkout"))
    out = tmp_path_factory.mktemp("report")
    step_report.run(StepInputs(params=Params(SETTINGS), work=out, out=out, paths=paths))
    return out / "index.html"


@pytest.fixture(scope="module")
def loaded(page, tmp_path_factory):
    dom, log, asked = browser.rendered(page, tmp_path_factory.mktemp("browser"))
    return Elements(dom), log, asked


def test_the_browser_shows_tables_curves_and_pictures(loaded):
    elements, _, _ = loaded
    tables = {table.get("class") for table in elements.of("table")}
    assert {"bd-rate", "levels", "all-scores", "train-style", "provenance", "settings"} <= tables
    drawn = [attributes["data-curve"] for attributes in elements.of("g") if "data-curve" in attributes]
    panels_of_methods = 1 + len(BENCHMARKS) + 3  # mean, benchmarks, levels; none in the styles of training
    assert drawn.count("jpeg") == panels_of_methods
    assert drawn.count("webp") == panels_of_methods
    pictures = elements.of("img")
    assert len(pictures) > 4 * ROWS  # rows of allocation maps, then examples
    assert all(picture["alt"] for picture in pictures)
    text = "".join(elements.text)
    assert "Bits saved at equal score" in text
    assert text.count("\N{CHECK MARK}") > 0 < text.count("\N{BALLOT X}")


def test_every_entry_of_the_contents_leads_somewhere(loaded):
    elements, _, _ = loaded
    anchors = [link["href"].removeprefix("#") for link in elements.of("a") if link.get("href", "").startswith("#")]
    ids = [attributes["id"] for _, attributes in elements.tags if attributes.get("id")]
    assert len(anchors) > 8
    assert set(anchors) <= set(ids)
    assert len(ids) == len(set(ids))


def test_the_page_has_no_script_and_logs_no_error(loaded):
    elements, log, _ = loaded
    assert elements.of("script") == []
    assert "CONSOLE" not in log


def test_the_page_fetches_nothing(loaded):
    elements, _, asked = loaded
    assert asked == []
    for _, attributes in elements.tags:
        for name in ("src", "href", "xlink:href", "data", "srcset"):
            assert re.match(r"#|data:|$", attributes.get(name) or ""), attributes


def test_a_page_that_fetches_or_fails_would_be_noticed(tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text('<img src="http://example.invalid/a.png"><script>console.error("broken")</script>')
    _, log, asked = browser.rendered(bad, tmp_path)
    assert asked == ["http://example.invalid/a.png"]
    assert "CONSOLE" in log


def test_the_first_screen_is_drawn_in_the_accent_colour(page, tmp_path):
    browser.screenshot(page, tmp_path / "page.png", tmp_path)
    pixels = np.asarray(Image.open(tmp_path / "page.png").convert("RGB")).astype(int)
    accent = np.abs(pixels - (0x00, 0x72, 0xB2)).sum(-1) < 12
    assert pixels.shape == (1200, 1440, 3)
    assert accent.sum() > 500  # the headline number
