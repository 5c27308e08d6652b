"""Claims about several MLLMs, and whose numbers stand first: the order of the settings, not that of names."""

import io
import json

import pytest
from rich.console import Console

from components.mllm.loading import FAMILIES
from components.mllm_kinds import TILES, kind_of
from components.paths import ROOT
from components.reporting.gather import summarise_run
from components.reporting.mllm_claims import larger_llava_claim, tiles_claim
from components.reporting.numbers import MINUS
from components.reporting.order import codecs_of, mllms_of, pairs_of
from components.reporting.page import render
from components.reporting.table import markdown, print_tables
from components.reporting.verdict_list import claims_json, claims_of
from components.reporting.videos import videos_claim
from tests import browser
from tests.made_up_run import CODEC, MLLM, write_run
from tests.made_up_summary import KINDS, summary, with_mllms

WORLD = ["micro-llava", "small-llava", "micro-internvl", "micro-onevision"]
SAVES, COSTS, NOISE = (-20.0, -30.0, -5.0), (12.0, 3.0, 20.0), (-9.0, -30.0, 4.0)
NO_INTERVAL, UNDEFINED = (-2.0, None, None), (None, None, None)
VERDICTS = [(SAVES, "holds"), (COSTS, "fails"), (NOISE, "unclear"), (NO_INTERVAL, "unclear"), (UNDEFINED, "unclear")]


def world(names=WORLD, pixels: int = 256 * 256, **rates: tuple) -> dict:
    """A summary in which CoTAM's BD-rate of the mean is what is said of an MLLM (its name with _ for -)."""
    found = with_mllms(summary(), list(names)) | {"image_pixels": pixels}
    for name, rate in rates.items():
        entry = found["codecs"]["elic"]["cotam"][name.replace("_", "-")]
        entry["bd_rate"]["mean"] = dict(zip(("value", "low", "high"), rate, strict=True))
    return json.loads(json.dumps(found, sort_keys=True))  # as it is read back


def test_what_the_settings_name_first_is_the_headline():
    found = world(micro_llava=NOISE, micro_internvl=SAVES)
    assert mllms_of(found, "elic") == WORLD and pairs_of(found)[0] == ("elic", "micro-llava")
    page = render(found, {}, [])
    assert "on micro-llava and 6 benchmarks" in page and "is about micro-llava and ELIC" in page
    assert f'id="headline">{MINUS}9.0<' in page
    places = [page.index(f'<section id="scores-elic-{name}"') for name in WORLD]
    assert places == sorted(places)
    places = [page.index(f'<section id="adapter-elic-{name}"') for name in WORLD]
    assert places == sorted(places)
    [saved] = [claim.here for claim in claims_of(found) if claim.id == "C7"]
    assert saved.startswith(f"{MINUS}9.0") and "with micro-llava" in saved
    other = world(WORLD[::-1])
    assert pairs_of(other)[0] == ("elic", "micro-onevision") and "on micro-onevision and 6" in render(other, {}, [])


def test_tables_have_the_same_order():
    out = io.StringIO()
    print_tables(world(), Console(file=out, width=80))
    for text, name in ((out.getvalue(), "Scores of {}"), (markdown(world()), "ELIC, `{}`")):
        places = [text.index(name.format(mllm)) for mllm in WORLD]
        assert places == sorted(places)


def test_codecs_have_theirs_and_old_summaries_that_of_names():
    found = world()
    found["codecs"]["dcae"] = {
        ("dcae" if method == "elic" else method): entry for method, entry in found["codecs"]["elic"].items()
    }
    found["order"]["codecs"] = ["elic", "dcae"]
    assert codecs_of(found) == ["elic", "dcae"]
    for key in ("order", "mllms", "image_pixels"):
        del found[key]
    assert codecs_of(found) == ["dcae", "elic"]
    assert mllms_of(found, "elic") == sorted(WORLD)
    assert not {"C8", "C10"} & {claim.id for claim in claims_of(found)}
    assert "on micro-internvl and 6 benchmarks" in render(found, {}, [])


@pytest.mark.parametrize(("rate", "verdict"), VERDICTS)
def test_a_larger_llava_is_judged_by_its_own_interval(rate, verdict):
    claim = larger_llava_claim(world(micro_llava=COSTS, small_llava=rate), "elic")
    assert (claim.id, claim.verdict, claim.mllms) == ("C8", verdict, {"small-llava": verdict})
    first, second = claim.here.index("micro-llava"), claim.here.index("small-llava")
    assert first < second and "micro-internvl" not in claim.here
    assert "12 layers of width 160" in claim.here and "the same files" in claim.here and "+12.0" in claim.here


def test_without_a_larger_llava_the_claim_is_not_there():
    assert larger_llava_claim(world(["micro-llava", "micro-internvl"]), "elic") is None
    assert larger_llava_claim(world(["micro-internvl", "micro-onevision"]), "elic") is None
    same = world(["micro-llava", "small-llava"])
    same["mllms"]["small-llava"] = KINDS["micro-llava"]
    assert larger_llava_claim(same, "elic") is None
    named_first = larger_llava_claim(world(["small-llava", "micro-llava"], small_llava=SAVES), "elic")
    assert named_first.mllms == {"small-llava": "holds"}


@pytest.mark.parametrize(("rate", "verdict"), VERDICTS)
def test_each_mllm_with_tiles_has_its_verdict(rate, verdict):
    claim = tiles_claim(world(micro_internvl=rate, micro_onevision=SAVES), "elic")
    assert (claim.id, claim.verdict) == ("C10", verdict)
    assert claim.mllms == {"micro-internvl": verdict, "micro-onevision": "holds"}
    assert "llava" not in claim.here and "65,536 pixels" in claim.here
    assert "points at equal rate +1.6 (+0.8 to +2.4): holds." in claim.here  # micro-onevision's


def test_what_fails_for_one_does_not_hold():
    claim = tiles_claim(world(micro_internvl=COSTS, micro_onevision=NOISE), "elic")
    assert claim.verdict == "fails" and claim.mllms == {"micro-internvl": "fails", "micro-onevision": "unclear"}


def test_images_of_one_tile_test_nothing():
    claim = tiles_claim(world(pixels=128 * 128, micro_internvl=SAVES, micro_onevision=SAVES), "elic")
    assert claim.verdict == "unclear" and claim.here.count("not tested") == 2
    assert tiles_claim(world(["micro-llava", "small-llava"]), "elic") is None


def test_claims_read_the_same_from_the_file():
    found = with_mllms(summary(), list(WORLD)) | {"image_pixels": 256 * 256}
    assert claims_of(found) == claims_of(world())


def test_the_page_and_the_summary_have_them_with_a_verdict_for_each():
    found = world(small_llava=SAVES, micro_internvl=NOISE, micro_onevision=SAVES)
    page = render(found, {}, [])
    rows = {claim: page.split(f'id="claim-{claim}"')[1].split("</tr>")[0] for claim in ("C8", "C10")}
    assert "small-llava: holds" in rows["C8"] and 'class="badge holds"' in rows["C8"]
    assert "micro-internvl: not settled" in rows["C10"] and "micro-onevision: holds" in rows["C10"]
    assert 'class="badge unclear"' in rows["C10"]
    told = claims_json(found)
    assert (told["codec"], told["mllm"]) == ("elic", "micro-llava")
    by_id = {claim["id"]: claim for claim in told["found"]}
    assert list(by_id) == ["C1", "C2", "C7", "C8", "C10", "C15", "C17", "C19"]
    assert by_id["C10"]["mllms"] == {"micro-internvl": "unclear", "micro-onevision": "holds"}
    assert by_id["C7"]["mllms"] == {} and json.dumps(told)
    assert videos_claim(found, "elic") is None


@browser.needed
def test_a_browser_shows_a_page_of_four_mllms(tmp_path):
    (tmp_path / "page.html").write_text(render(world(micro_onevision=SAVES), {}, []))
    dom, log, asked = browser.rendered(tmp_path / "page.html", tmp_path)
    assert asked == [] and "CONSOLE" not in log
    assert all(f'id="claim-{claim}"' in dom for claim in ("C7", "C8", "C10"))


def test_a_run_says_its_order_and_kinds(tmp_path):
    found = summarise_run(write_run(tmp_path), [(CODEC, MLLM)], 20, 7)
    assert found["order"] == {"codecs": [CODEC], "mllms": [MLLM]}
    assert found["mllms"] == {MLLM: KINDS[MLLM]} and found["image_pixels"] == 64 * 64
    entry = found["codecs"][CODEC][CODEC][MLLM]
    drops = {level: [row["drop"] for row in rows] for level, rows in entry["levels"].items()}
    for level, excess in entry["cross_level_excess"].items():
        wanted = sum(drops["cross"]) / len(drops["cross"]) - sum(drops[level]) / len(drops[level])
        assert excess["value"] == pytest.approx(wanted) and excess["low"] <= excess["value"] <= excess["high"]
    assert found["codecs"][CODEC]["cotam"][MLLM]["level_gains"].keys() == {"low", "high", "cross"}


@pytest.mark.parametrize("name", WORLD)
def test_kinds_are_read_from_what_ships(name):
    assert kind_of(ROOT / "pretrained/mllm" / name) == KINDS[name]


def test_kinds_of_published_files(tmp_path):
    def kind(told: dict) -> dict:
        (tmp_path / "config.json").write_text(json.dumps(told))
        return kind_of(tmp_path)

    # LLaVA-1.5-7B leaves out what is the default of a Llama.
    vision = {"model_type": "clip_vision_model", "image_size": 336, "hidden_size": 1024, "num_attention_heads": 16}
    llava = {"model_type": "llava", "text_config": {"model_type": "llama"}, "vision_config": vision}
    assert kind(llava) == {"family": "llava", "tiles": False, "side": 336, "layers": 32, "width": 4096}
    internvl = {
        "model_type": "internvl_chat",
        "vision_config": {"image_size": 448},
        "llm_config": {"hidden_size": 4096, "num_hidden_layers": 32},
    }
    assert kind(internvl) == {"family": "internvl_chat", "tiles": True, "side": 448, "layers": 32, "width": 4096}
    assert kind({}) == kind({"model_type": "elic"}) == {}
    assert kind_of(tmp_path / "nothing") == {}


def test_every_family_that_opens_is_known():
    assert TILES.keys() == FAMILIES.keys()
