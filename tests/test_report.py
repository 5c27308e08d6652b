"""What the page says: verdicts by rule, sections only for what was measured, equal bytes for equal inputs."""

import copy

import pytest

from components.reporting import claims, examples
from components.reporting.examples import Answer
from components.reporting.numbers import MINUS, number
from components.reporting.page import flatten, render
from tests.made_up_summary import BENCHMARKS, summary

SETTINGS = {"seed": 7, "evaluation": {"bootstrap": 1000, "qualities": [0, 1]}}


def told(value: float | None, low: float | None = None, high: float | None = None) -> dict:
    return {"value": value, "low": low, "high": high}


@pytest.mark.parametrize(
    ("low", "high", "verdict", "says"),
    [
        (told(4, 1, 7), told(5, 2, 8), "holds", "Cross-level questions suffer most"),
        (told(4, 1, 7), told(0.4, -1.4, 2.4), "unclear", "not settled here"),
        (told(4, 1, 7), told(-3, -5, -1), "fails", "does not hold here"),
        (told(0.4, -1, 2), told(-3, -5, -1), "fails", "more than on high-level ones by \N{MINUS SIGN}3.0"),
        (told(None), told(5, 2, 8), "unclear", "more than on low-level ones by not defined"),
        (told(4, 1, 7), told(5), "unclear", "+5.0 (no interval)"),
    ],
)
def test_cross_level_questions_suffer_most_only_beyond_noise(low, high, verdict, says):
    drops = {"low": [2, 1], "high": [1, 5], "cross": [9, 4]}
    levels = {level: [{"drop": drop} for drop in values] for level, values in drops.items()}
    claim = claims.levels_claim({"levels": levels, "cross_level_excess": {"low": low, "high": high}}, "ELIC")
    assert (claim.id, claim.verdict) == ("C2", verdict)
    assert says in claim.here and "costs 6.5 points" in claim.here and "most at 1 of 2 rates" in claim.here


def test_a_summary_without_differences_of_levels_settles_nothing():
    old = summary()["codecs"]["elic"]["elic"]["micro-llava"]
    del old["cross_level_excess"]
    assert claims.levels_claim(old, "ELIC").verdict == "unclear"
    assert claims.both_ends_claim({"levels": old["levels"]}) is None


@pytest.mark.parametrize(
    ("low", "high", "cross", "verdict"),
    [
        (told(1, 0.2, 2), told(1, 0.5, 2), told(-3, -5, -1), "holds"),  # cross-level questions are only shown
        (told(-0.2, -0.6, 0.3), told(1, 0.5, 2), told(1, 0.5, 2), "unclear"),
        (told(-1, -2, -0.2), told(1, 0.5, 2), told(1, 0.5, 2), "fails"),
        (told(1), told(1, 0.5, 2), told(1, 0.5, 2), "unclear"),
    ],
)
def test_both_ends_are_kept_only_beyond_noise(low, high, cross, verdict):
    claim = claims.both_ends_claim({"level_gains": {"low": low, "high": high, "cross": cross}})
    assert (claim.id, claim.verdict) == ("C1", verdict)
    assert "cross-level" in claim.here


@pytest.mark.parametrize(
    ("mean", "verdict"),
    [
        ({"value": -30.0, "low": -35.0, "high": -25.0}, "holds"),
        ({"value": -3.0, "low": -8.0, "high": 2.0}, "unclear"),
        ({"value": 9.0, "low": 4.0, "high": 12.0}, "fails"),
        ({"value": -3.0, "low": None, "high": None}, "unclear"),
        ({"value": None, "low": None, "high": None}, "unclear"),
    ],
)
def test_the_saving_holds_only_when_its_whole_interval_is_below_zero(mean, verdict):
    assert claims.bd_rate_claim({"mean": mean}, "elic", "micro-llava").verdict == verdict


def test_a_benchmark_that_saves_nothing_is_named():
    bd_rate = {"mean": {"value": -30.0, "low": -35.0, "high": -25.0}, "pope": {"value": 1.0, "low": -2.0, "high": 4.0}}
    assert "saves nothing on POPE" in claims.bd_rate_claim(bd_rate, "elic", "micro-llava").here


def test_psnr_is_compared_at_equal_rate():
    plain = [{"bpp": bpp, "psnr": psnr} for bpp, psnr in ((0.1, 30.0), (0.2, 33.0), (0.4, 36.0))]
    guided = [{"bpp": 0.2 * 2**0.5, "psnr": 34.0}, {"bpp": 0.9, "psnr": 50.0}]
    assert claims.loss_at_equal_rate(plain, guided) == pytest.approx(0.5)
    assert claims.loss_at_equal_rate(plain, [{"bpp": 0.9, "psnr": 50.0}]) is None


def test_equal_inputs_give_equal_pages():
    assert render(summary(), SETTINGS, []) == render(summary(), SETTINGS, [])


def test_what_was_not_measured_has_no_section():
    bare = {key: summary()[key] for key in ("schema", "benchmarks", "codecs")}
    for results in bare["codecs"]["elic"].values():
        results["micro-llava"].pop("train_style", None)
    page = render(bare, SETTINGS, [])
    unmeasured = ("photographs", "allocation", "examples", "train-style", "adapter", "videos")
    for section in (*unmeasured, "claim-C8", "claim-C10", "claim-C23"):
        assert f'id="{section}' not in page
        assert f'href="#{section}' not in page
    assert 'id="bd-rate"' in page


def test_curves_that_do_not_overlap_are_said_so():
    broken = summary()
    bd_rate = broken["codecs"]["elic"]["cotam"]["micro-llava"]["bd_rate"]
    bd_rate["mean"] = {"value": None, "low": None, "high": None}
    bd_rate["pope"] = {"value": None, "low": None, "high": None}
    page = render(broken, SETTINGS, [])
    assert "do not overlap" in page
    assert "not defined for" in page


def test_a_failed_claim_is_in_the_notes():
    failed = summary()
    failed["codecs"]["elic"]["elic"]["micro-llava"]["cross_level_excess"]["low"] = told(-9, -12, -6)
    page = render(failed, SETTINGS, [])
    assert "C2 does not hold." in page


def test_two_codecs_have_sections_of_their_own():
    two = summary()
    two["codecs"]["dcae"] = {
        ("dcae" if method == "elic" else method): copy.deepcopy(result)
        for method, result in two["codecs"]["elic"].items()
    }
    page = render(two, SETTINGS, [])
    assert 'id="bd-rate-elic-micro-llava"' in page
    assert 'id="bd-rate-dcae-micro-llava"' in page


def test_text_from_outside_is_escaped():
    page = render(summary(), {"data": {"source": "<script>alert(1)</script>"}}, [])
    assert "<script>" not in page


def test_settings_are_flat_and_numbers_are_typeset():
    assert list(flatten(SETTINGS)) == [
        ("seed", "7"),
        ("evaluation.bootstrap", "1000"),
        ("evaluation.qualities", "0, 1"),
    ]
    assert number(-3.25, 1) == f"{MINUS}3.2"
    assert number(-0.01, 1, sign=True) == "0.0"
    assert number(None) == "\N{EN DASH}"


def answers(image: str, base: bool, cotam: bool, prompt: str = "how many ?") -> list[Answer]:
    return [
        Answer(method, BENCHMARKS[0], image, prompt, prompt, "cross", "3", "3" if right else "2", right)
        for method, right in (("clean", True), ("elic", base), ("cotam", cotam))
    ]


def test_examples_are_chosen_by_rule_and_show_both_sides():
    given = [
        answer
        for image, base, cotam in (("a", True, True), ("b", False, True), ("c", True, False), ("d", False, True))
        for answer in answers(image, base, cotam)
    ]
    table = examples.by_question(given)
    assert [image for image, _ in examples.choose(table, "elic", "cotam")] == ["b", "d", "c"]
    assert examples.agreement(table, "elic", "cotam") == {
        (True, True): 1, (True, False): 1, (False, True): 2, (False, False): 0,
    }  # fmt: skip


def test_a_question_that_a_method_did_not_answer_is_left_out():
    given = [*answers("a", True, True), *answers("b", True, True)[:2]]
    assert [image for image, _, _ in examples.by_question(given)] == ["a"]


def test_questions_that_tell_the_codecs_apart_come_first():
    given = [answer for index in range(6) for answer in answers("a", True, index != 5, f"question {index}")]
    [(_, shown)] = examples.choose(examples.by_question(given), "elic", "cotam")
    assert len(shown) == examples.QUESTIONS_SHOWN
    assert shown[0]["elic"].prompt == "question 5"


def test_matched_qualities_have_about_the_same_rate():
    base = [{"quality": quality, "bpp": 0.1 * 2**quality} for quality in range(6)]
    other = [{"quality": quality, "bpp": 0.11 * 2**quality} for quality in range(6)]
    assert [point["quality"] for point in examples.matched_qualities(base, other)] == [2, 2]


@pytest.mark.parametrize(
    ("raised", "lowered", "verdict"),
    [(31.0, -22.0, "holds"), (31.0, None, "unclear"), (31.0, 4.0, "fails"), (-1.0, None, "fails")],
)
def test_bits_follow_the_map_only_as_far_as_it_was_tested(raised, lowered, verdict):
    claim = claims.allocation_claim({"raised": raised, "lowered": lowered})
    assert claim.verdict == verdict
    assert ("no region was lowered" in claim.here) == (lowered is None)
