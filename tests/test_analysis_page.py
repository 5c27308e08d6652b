"""The page of `cotam analyze` in a real browser: controls are moved, and what it then says is held against numbers."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from components.analysis.collect import analyse
from components.analysis.compressors import Compressors, parse_choice
from components.analysis.flow import Layout
from components.analysis.images import find_images
from components.analysis.keep import COARSE, coarse_layout, keep
from components.analysis.page import render
from components.analysis.towers import open_tower
from tests import browser
from tests.pictures import folder_of
from tests.towers import internvit_folder

# Moves every control as a reader would, and writes down what is then on the page.
DRIVER = """
<script>
const said = [];
const note = (name) => said.push({
  name, state: { ...state }, token: $("token-text").textContent, rate: $("rate-text").value,
  layer: $("layer-text").value, raw: $("raw-title").textContent, compressed: $("compressed-title").textContent,
  best: Object.fromEntries([...document.querySelectorAll("figure[data-best]")].map((figure) =>
    [figure.closest(".column").dataset.side + " " + figure.dataset.kind, Number(figure.dataset.best)])),
  src: [...document.querySelectorAll(".column img")].map((image) => image.src.length),
});
const move = (id, value) => { $(id).value = value; $(id).dispatchEvent(new Event("input", { bubbles: true })); };
note("start");
move("layer", 6); note("layer");
move("rate", 1); note("rate");
move("image", 1); note("image");
const stage = document.querySelector('[data-side="raw"] [data-kind="looks"] .stage');
const box = stage.getBoundingClientRect();
stage.dispatchEvent(new MouseEvent("click", {
  bubbles: true, clientX: box.left + box.width * 2.5 / columns, clientY: box.top + box.height * 4.5 / rows,
}));
note("click");
document.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowDown", bubbles: true })); note("down");
$("cls").click(); note("cls");
const told = document.createElement("pre");
told.id = "told";
told.textContent = JSON.stringify(said);
document.body.append(told);
</script>
"""


@pytest.fixture(scope="module")
def looked(tmp_path_factory):
    """A tower's analysis and two images in full."""
    root = tmp_path_factory.mktemp("page")
    folder = internvit_folder(root / "tower")
    images, choice = find_images(str(folder_of(root / "photos", 2)), 2), parse_choice("jpeg:5,80")
    analysis = analyse(str(folder), images, [choice])
    kept = keep(open_tower(folder), images, range(2), Compressors([choice]), analysis.settings, 0)
    return analysis, kept


@pytest.fixture(scope="module")
def html(looked) -> str:
    analysis, kept = looked
    return render(analysis, None, kept)


@pytest.fixture(scope="module")
def moved(html, tmp_path_factory):
    """What the driver wrote down, by step; the log; and what the page asked for."""
    folder = tmp_path_factory.mktemp("browser")
    (folder / "page.html").write_text(html.replace("</body>", DRIVER + "</body>"))
    dom, log, asked = browser.rendered(folder / "page.html", folder)
    told = re.search(r'<pre id="told">(.*?)</pre>', dom, re.S)
    assert told, log
    steps = json.loads(told[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    return {step["name"]: step for step in steps}, log, asked


@browser.needed
def test_every_control_does_what_it_says(moved, looked):
    steps, log, asked = moved
    _, kept = looked
    assert "CONSOLE" not in log
    assert asked == []
    assert steps["start"]["token"].startswith("Token at row 3, column 3.")
    assert (steps["start"]["layer"], steps["layer"]["layer"]) == ("0", "6")
    low, high = sorted(kept[0].bpp)
    assert steps["start"]["rate"] == f"{low:.3f} bpp"
    assert steps["rate"]["rate"] == f"{high:.3f} bpp"
    assert steps["rate"]["src"] != steps["layer"]["src"]
    assert (steps["rate"]["raw"], steps["image"]["raw"]) == (f"Raw: {kept[0].name}", f"Raw: {kept[1].name}")
    assert "jpeg 80" in steps["image"]["compressed"]
    assert steps["click"]["token"].startswith("Token at row 4, column 2.")
    assert steps["down"]["token"].startswith("Token at row 5, column 2.")
    assert steps["cls"]["token"] == "Token at CLS."


@browser.needed
def test_what_it_shows_is_what_was_measured(moved, looked):
    steps, _, _ = moved
    _, kept = looked
    for name in ("start", "layer", "rate", "image", "click", "down", "cls"):
        step, state = steps[name], steps[name]["state"]
        image, token, layer = kept[state["image"]], state["token"], state["layer"]
        place = 1 + int(np.argsort(image.bpp)[state["rate"]])
        for side, version in (("raw", 0), ("compressed", place)):
            attention_TT = image.attention[layer][version]
            for kind, shares in (("looks", attention_TT[token]), ("looked", attention_TT[:, token])):
                best = step["best"][f"{side} {kind}"]
                # A byte holds the root of a share: 1 % of the top is told apart.
                assert shares[best] >= shares.max() - 0.01 * attention_TT.max(), (name, side, kind)
        if token > 0:
            similarity = image.similarity_SLN[place - 1, layer + 1, token - 1]
            told = float(step["token"].rpartition(" ")[2].removesuffix("."))
            assert told == pytest.approx(similarity, abs=6e-4)


@browser.needed
def test_the_first_screen_is_drawn(html, tmp_path):
    (tmp_path / "page.html").write_text(html)
    browser.screenshot(tmp_path / "page.html", tmp_path / "page.png", tmp_path)
    pixels = np.asarray(Image.open(tmp_path / "page.png").convert("RGB")).astype(int)
    pink = np.abs(pixels - (224, 33, 138)).sum(-1) < 12
    assert pink.sum() > 400  # the chosen patch, in four panels


def test_the_page_fetches_nothing_and_a_name_cannot_break_it(looked):
    analysis, kept = looked
    before = kept[0].name
    kept[0].name = "</script><b>&"
    try:
        page = render(analysis, None, kept)
    finally:
        kept[0].name = before
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert "</script><b>" not in page
    data = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.S)[1]
    assert json.loads(data)["images"][0]["name"] == "</script><b>&"


def test_large_grids_are_made_coarse_without_losing_attention():
    pool_UT, coarse = coarse_layout(Layout(1, (24, 27)))
    assert max(coarse.grid) <= COARSE
    assert coarse.grid == (8, 9)
    attention_TT = np.random.default_rng(1).dirichlet(np.ones(649), 649)
    pool = pool_UT.numpy()
    pooled = (pool / pool.sum(-1, keepdims=True)) @ attention_TT @ pool.T
    assert pooled.sum(-1) == pytest.approx(np.ones(73))
    assert pooled[0, 0] == pytest.approx(attention_TT[0, 0])


def test_small_grids_stay_as_they_are():
    pool_UT, coarse = coarse_layout(Layout(0, (8, 8)))
    assert coarse == Layout(0, (8, 8))
    assert np.array_equal(pool_UT.numpy(), np.eye(64))
