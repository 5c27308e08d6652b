"""Verdicts on the ablations, from made-up answers whose truth is known."""

from xml.etree import ElementTree

import numpy as np
import pytest
from rich.console import Console

from benchmarks.ablation_tables import KEPT, PAGE, TILES, claims_table, document, document_tiles, variants_table
from components import config
from components.errors import CotamError
from components.evaluation.benchmarks import BENCHMARKS
from components.evaluation.scores import LEVELS
from components.evaluation.variant_record import variant_record
from components.evaluation.variant_results import RATE, Estimate, Reader, over_seeds
from components.files import read_json, write_json
from components.reporting.ablation_claims import find_verdicts
from components.reporting.ablation_page import render
from components.reporting.ablation_summary import print_verdicts, summarise
from components.reporting.claim_figures import claim_figures, standalone
from components.reporting.verdicts import (
    FAILS,
    HOLDS,
    INCOMPARABLE,
    MISSING,
    NOISE,
    SHOWN,
    Expectation,
    Number,
)
from components.variants import runs, settings_of
from flows.ablation_records import claim_files

IMAGES, QUALITIES = 60, ["0", "1", "2", "3"]
SEED = config.load().seed
OVERRIDES = {"evaluation.qualities": "[0, 1, 2, 3]"}
ORDER = {"low": 0, "high": 1, "cross": 2}


def questions():
    """A question of every level about every image, in turn from the six benchmarks."""
    return [
        {
            "benchmark": BENCHMARKS[(image + 2 * place) % len(BENCHMARKS)],
            "id": f"{image}-{level}",
            "image": f"{image:03d}",
            "level": level,
            "family": level,
            "category": f"of {level}",
            "pair": None,
        }
        for image in range(IMAGES)
        for place, level in enumerate(LEVELS)
    ]


def answers(shift: float, seed: int = 0, drops=(0.25, 0.25, 0.45)):
    """Quality -> right (1) or wrong (0) per question; more are right with more bits and with `shift`.

    Thresholds are each question's own, so that whoever is better is better everywhere.
    """
    thresholds = np.random.default_rng(1).random(IMAGES * len(LEVELS))
    noise = np.random.default_rng(seed).normal(0, 0.02, thresholds.size)
    drop = np.array([drops[ORDER[question["level"]]] for question in questions()])
    chances = {q: 1 - drop * (1 - place / 4) + shift + noise for place, q in enumerate(QUALITIES)}
    return {q: (thresholds < chance).astype(int).tolist() for q, chance in chances.items()}


def files(factor: float = 1.0):
    sizes = np.random.default_rng(2).integers(900, 1100, IMAGES)
    return {
        q: {"bits": (sizes * 2**place * factor).astype(int).tolist(), "header_bits": [112] * IMAGES}
        for place, q in enumerate(QUALITIES)
    }


@pytest.fixture
def found(tmp_path):
    """Of the settings in params.yaml: see `made_up`."""
    return made_up(tmp_path, config.load(overrides=OVERRIDES))


def made_up(tmp_path, settings):
    """A checkout with the main run's results; functions that add a variant's and read all of them, and the settings."""
    images = {"images": [f"{image:03d}" for image in range(IMAGES)], "pixels": [128 * 128] * IMAGES}
    scores = {"clean": {"-": [1] * (3 * IMAGES)}, "elic": answers(0, SEED)}
    rates = {"styles": {"bench": images | {"methods": {"elic": files()}}}}
    write_json(tmp_path / "results/rate/elic/rates.json", rates)
    style = {"bench": {"questions": questions(), "scores": scores}}
    write_json(tmp_path / "results/scores/elic-micro-llava/scores.json", {"styles": style})
    known = {run.name: run for run in runs(settings)}

    def add(variant, shift, seeds=(SEED,), factor=1.0, drops=(0.25, 0.25, 0.45), **changes):
        for seed in seeds:
            run = known[f"{variant}-{seed}"]
            content = variant_record(run, settings_of(settings, run))
            content |= {"rates": images | {"files": files(factor)}, "questions": questions()}
            content |= {"scores": answers(shift, seed, drops)} | changes
            write_json(tmp_path / f"results/variants/{variant}-{seed}/scores.json", content)

    def results():
        return Reader(200, SEED).results(tmp_path, runs(settings), settings)

    return add, results, settings


def verdict(results, settings, claim):
    return next(one for one in find_verdicts(results, settings) if one.id == claim)


def test_a_claim_holds_fails_or_is_within_noise(found):
    add, results, settings = found
    add("full", 0.15)
    add("high-only", 0.05)
    add("low-only", 0.0)
    add("no-warmup", 0.15)
    assert verdict(results(), settings, "C12").verdict == HOLDS
    add("low-only", 0.3)
    claim = verdict(results(), settings, "C12")
    assert claim.verdict == FAILS
    assert [one.verdict for one in claim.comparisons] == [HOLDS, FAILS, HOLDS]
    add("low-only", 0.15)
    assert verdict(results(), settings, "C12").verdict == NOISE


def test_a_missing_variant_is_named(found):
    add, results, settings = found
    add("full", 0.15)
    claim = verdict(results(), settings, "C9")
    assert claim.verdict == MISSING
    assert [one.missing for one in claim.comparisons] == ["cotam-ft", "cotam-ft", "bridge-d3", "cotam-ft"]
    assert claim.comparisons[3].expected == "nothing"
    summary = summarise(results(), settings)
    assert "bridge-d3" in summary["missing"] and "full" not in summary["missing"]


def test_nothing_at_all_is_no_crash(tmp_path):
    settings = config.load()
    results = Reader(10, SEED).results(tmp_path, runs(settings), settings)
    assert {one.verdict for one in find_verdicts(results, settings)} == {MISSING}
    assert "cotam ablations" in render(summarise(results, settings))


def test_no_adapter_collapses_only_below_the_codec_alone(found):
    add, results, settings = found
    add("full", 0.15)
    for shift, said in ((-0.15, HOLDS), (0.05, FAILS)):
        add("no-adapter", shift)
        mean, *each = [c for c in verdict(results(), settings, "C11").comparisons if "codec alone" in c.what]
        assert mean.verdict == said and len(each) == len(BENCHMARKS)
        assert all((one.estimate.value > 0) == (said == HOLDS) for one in each)


def test_a_loss_everywhere_is_one_on_every_benchmark(found):
    """Where one benchmark is better without guidance, the mean may still be worse."""
    add, results, settings = found
    add("full", 0.1)

    def comparisons():
        found = verdict(results(), settings, "C11")
        return {one.what: one.verdict for one in found.comparisons}, found.verdict

    add("no-guidance", -0.1)
    by_name, _ = comparisons()
    assert len([what for what in by_name if what.startswith("full over no guidance, ")]) == len(BENCHMARKS)
    assert by_name["full over no guidance, SEED-Bench"] == HOLDS
    right = [question["benchmark"] == "seedbench" for question in questions()]
    worse = answers(-0.1, SEED)
    add("no-guidance", 0, scores={q: [max(pair) for pair in zip(worse[q], right, strict=True)] for q in worse})
    by_name, said = comparisons()
    assert by_name["full over no guidance"] == HOLDS
    assert by_name["full over no guidance, SEED-Bench"] == FAILS and said == FAILS


def test_fine_tuning_has_to_gain_little_and_to_collapse(found):
    add, results, settings = found
    add("full", 0.15)

    def said():
        claim = verdict(results(), settings, "C20")
        return claim.verdict, [one.verdict for one in claim.comparisons][2:], [one.unit for one in claim.comparisons]

    add("mft", 0.0)
    add("cft", -0.05)
    assert said() == (HOLDS, [HOLDS] * 3, ["points", "points", "%", "points", "%"])
    for shift in (0.05, -0.05):  # neither a gain nor a loss of more than the band is little
        add("mft", shift)
        assert said()[:2] == (FAILS, [FAILS, HOLDS, HOLDS])
    add("mft", 0.0)
    add("cft", 0.05)
    assert said()[:2] == (FAILS, [HOLDS, FAILS, FAILS])
    add("cft", 0.0, factor=1.0)
    assert said()[0] == NOISE


def test_noise_over_benchmarks_is_no_uneven_loss(found):
    add, results, settings = found
    add("full", 0.15)
    add("no-reconstruction", 0.05)
    [one] = [c for c in verdict(results(), settings, "C11").comparisons if "more than on MME" in c.what]
    read = results()
    gains = {name: read.gain("full", "no-reconstruction", name)[0] for name in ("textvqa", "seedbench", "mme")}
    assert one.estimate.value == pytest.approx((gains["textvqa"] + gains["seedbench"]) / 2 - gains["mme"])
    assert one.verdict == NOISE


def test_both_baselines_are_compared_in_bits(found):
    add, results, settings = found
    add("full", 0.15)
    add("bridge-d1", 0.15, factor=1.25)
    add("icmh-adapt", 0.15, factor=0.8)
    by_name = {one.what: one for one in verdict(results(), settings, "C7").comparisons}
    assert by_name["bits saved, CoTAM against Bridge-d1"].estimate.value == pytest.approx(20, abs=1)
    assert by_name["bits saved, CoTAM against ICMH-Adapt"].verdict == FAILS


def test_curves_that_share_nothing_are_not_comparable(found):
    add, results, settings = found
    add("full", 0.15)
    add("bridge-d1", 0.15, factor=1000)
    claim = verdict(results(), settings, "C1")
    assert claim.verdict == INCOMPARABLE
    assert "not comparable" in render(summarise(results(), settings))


def test_what_is_only_shown_decides_nothing(found):
    add, results, settings = found
    add("full", 0.15)
    shown = [one for one in verdict(results(), settings, "C22").comparisons if one.verdict == SHOWN]
    assert [one.missing for one in shown] == ["no-guidance"]


def test_high_resolution_is_named_as_not_measured(found):
    _, results, settings = found
    claim = verdict(results(), settings, "C13")
    assert claim.verdict == MISSING and "several tiles" in claim.comparisons[0].missing


def test_hierarchical_guidance_is_held_against_each_of_its_parts(tmp_path):
    parts = {scope: f"{scope}: {{guidance: {{scope: {scope}}}, adapter_of: full}}" for scope in ("global", "local")}
    variants = {"variants": f"{{full: {{}}, {', '.join(parts.values())}}}"}
    add, results, settings = made_up(tmp_path, config.load(overrides=OVERRIDES | variants))
    assert verdict(results(), settings, "C13").verdict == MISSING
    add("full", 0.15)
    add("global", 0.05)
    assert verdict(results(), settings, "C13").verdict == HOLDS
    add("local", 0.3)  # the paper says nothing of it
    claim = verdict(results(), settings, "C13")
    assert claim.verdict == HOLDS and len(claim.comparisons) == 4
    assert [one.estimate.value > 0 for one in claim.comparisons] == [True, True, False, False]
    add("global", 0.3)
    assert verdict(results(), settings, "C13").verdict == FAILS


def test_cross_level_questions_suffer_most(found):
    _, results, settings = found
    claim = verdict(results(), settings, "C2")
    assert claim.verdict == HOLDS
    assert all(one.estimate.value > 5 for one in claim.comparisons)


def test_about_the_same_means_within_two_per_cent(found):
    add, results, settings = found
    add("full", 0.15)
    add("no-guidance", 0.05)
    add("k-045", 0.15)
    add("k-060", 0.15, factor=1.2)
    by_name = {one.what: one for one in verdict(results(), settings, "C21").comparisons}
    assert by_name["bits saved, k = 0.45 against 0.75"].verdict == HOLDS
    assert by_name["bits saved, k = 0.45 against no guidance"].verdict == HOLDS
    assert by_name["bits saved, k = 0.6 against 0.75"].verdict == FAILS
    assert by_name["bits saved, k = 0.6 against 0.75"].estimate.value == pytest.approx(-20, abs=0.5)


def test_bits_at_equal_score_are_what_was_put_in(found):
    add, results, _ = found
    add("full", 0.0, factor=0.8)
    gain = results().gain("full", kind=RATE)
    estimate = Estimate.of(gain)
    assert estimate.value == pytest.approx(-20, abs=1)
    assert estimate.low <= estimate.value <= estimate.high


def test_seeds_are_paired_and_widen_intervals():
    values_SR = np.array([np.full(2001, 1.0), np.full(2001, 3.0), np.full(2001, 5.0)])
    combined = over_seeds(values_SR, 0)
    assert combined[0] == 3.0 and {1.0, 5.0} <= set(combined) <= set(np.arange(3, 16) / 3) | {1.0, 3.0, 5.0}
    assert np.array_equal(over_seeds(values_SR[:1], 0), values_SR[0])


def test_a_variant_without_training_stands_beside_every_seed(found):
    add, results, settings = found
    seeds = (SEED, *settings.more_seeds)
    add("full", 0.15, seeds)
    add("no-adapter", 0.0)
    add("high-only", 0.1, seeds[1:])
    read = results()
    assert read.gain("full", "no-adapter")[0] > 0
    assert sorted(read.runs["high-only"]) == sorted(seeds[1:])
    assert Estimate.of(read.gain("full", "high-only")).value > 0
    add("low-only", 0.1, seeds[:1])
    del read.runs["full"][SEED]
    read.runs["low-only"] = results().runs["low-only"]
    read.about["low-only"] = results().about["low-only"]
    with pytest.raises(KeyError, match="a seed that full and low-only share"):
        read.gain("full", "low-only")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"questions": [question | {"id": "x"} for question in questions()]}, "made on other benchmarks"),
        ({"questions": [question | {"image": "x"} for question in questions()]}, "made on other benchmarks"),
        ({"codec": "dcae"}, "made with other settings"),
        ({"settings": {"guidance": {"k": 0.1}}}, "made with other settings"),
        ({"changes": {"guidance": {"levels": 1}}}, "made with other settings"),
        ({"scores": {q: [1] * (3 * IMAGES) for q in QUALITIES[:3]}}, "made with other settings"),
    ],
)
def test_stale_results_are_passed_over_and_named(found, changes, why):
    add, results, settings = found
    add("full", 0.1)
    add("no-guidance", 0.1, **changes)
    read = results()
    assert read.stale == {f"no-guidance-{SEED}": why} and read.runs.keys() == {"full"}
    summary = summarise(read, settings)
    assert "no-guidance" in summary["missing"] and summary["stale"] == read.stale
    assert f"The results of no-guidance-{SEED} are stale and passed over: they were {why}." in render(summary)
    assert "no-guidance (stale)" in {one.missing for one in verdict(read, settings, "C11").comparisons}


def test_a_main_run_of_another_k_or_length_leaves_results_stale(found, tmp_path):
    add, _, _ = found
    add("full", 0.1)

    def stale(**overrides):
        changed = config.load(overrides=OVERRIDES | {key.replace("__", "."): value for key, value in overrides.items()})
        return Reader(20, SEED).results(tmp_path, runs(changed), changed).stale

    assert stale() == {}
    assert stale(guidance__k="0.5") == stale(adapter__joint_epochs="9") == {f"full-{SEED}": "made with other settings"}
    path = tmp_path / f"results/variants/full-{SEED}/scores.json"
    write_json(path, {key: value for key, value in read_json(path).items() if key != "settings"})
    assert stale() == {f"full-{SEED}": "made before results said their settings"}


def test_the_page_says_how_a_variant_differs(found):
    add, results, settings = found
    for variant in ("full", "k-045", "no-warmup"):
        add(variant, 0.1)
    summary = summarise(results(), settings)
    k, epochs = settings.guidance.k, settings.adapter.joint_epochs
    assert summary["variants"]["k-045"]["differs"]["guidance.k"] == {"value": 0.45, "main": k}
    page = render(summary)
    assert f"adapter_of: full, guidance.k: 0.45 (main run: {k})" in page
    longer = settings.variants["no-warmup"].adapter["joint_epochs"]
    assert f"adapter.joint_epochs: {longer} (main run: {epochs})" in page
    assert "nothing: the main run" in page


def test_what_rests_on_one_training_says_so_wherever_it_is_shown(found, tmp_path):
    """`full` has three trainings and the others one, so that only what is about `full` alone is about trainings too."""
    add, results, settings = found
    seeds = [SEED, *settings.more_seeds]
    add("full", 0.15, seeds)
    add("no-guidance", 0.05, seeds)
    add("no-adapter", -0.1)  # trains nothing
    add("icmh-adapt", 0.1)
    add("mft", 0.05)
    summary = summarise(results(), settings)
    claims = {claim["id"]: claim for claim in summary["claims"]}
    rows = {(claim, one["what"]): one for claim in claims for one in claims[claim]["comparisons"]}
    expected = {
        ("C7", "bits saved, CoTAM against the codec alone"): ({"full": seeds}, False),
        ("C7", "bits saved, CoTAM against ICMH-Adapt"): ({"full": [SEED], "icmh-adapt": [SEED]}, True),
        ("C7", "bits saved, CoTAM against Bridge-d1"): ({}, False),
        ("C11", "full over no guidance"): ({"full": seeds, "no-guidance": seeds}, False),
        ("C11", "full over no adapter"): ({"full": seeds}, False),
        ("C20", "CoTAM's gain over twice that of the fine-tuned MLLM"): ({"full": seeds, "mft": [SEED]}, True),
        ("C2", "lost on cross-level questions, more than on low-level ones"): ({}, False),
    }
    assert {place: (rows[place]["trainings"], rows[place]["images_only"]) for place in expected} == expected
    assert claims["C7"]["images_only"] and claims["C20"]["images_only"] and not claims["C2"]["images_only"]
    assert [summary["variants"][name]["images_only"] for name in ("full", "icmh-adapt", "no-adapter")] == [0, 1, 0]

    shared, alone = f"full, icmh-adapt: {SEED}", f"above 0 | full: {', '.join(map(str, seeds))} | holds |"
    verdict = rows["C7", "bits saved, CoTAM against ICMH-Adapt"]["verdict"]
    tables = [claims_table(summary), *(path.read_text() for path in claim_files(summary, tmp_path))]
    for table in (tables[0], next(text for text in tables[1:] if text.startswith("# C7: not measured (images only)"))):
        assert f"| above 0 | {shared} | {verdict} (images only) |" in table and alone in table
    assert "**C7: not measured (images only)**" in tables[0]
    console = Console(record=True, width=400)
    print_verdicts(summary, console)
    page = render(summary)
    for text in (page, console.export_text()):
        assert shared in text and f"{verdict} (images only)" in text and "not measured (images only)" in text
    assert "their intervals are over images only: icmh-adapt, mft." in page
    assert "tuned codecs (icmh-adapt, mft) are trained" in page and "first guesses" in page
    drawn = claim_figures(summary)["C7"][0][1]
    assert "ICMH-Adapt *" in drawn and "the codec alone *" not in drawn and "a variant was trained once" in drawn


def test_a_claim_that_fails_over_all_trainings_fails_whatever_was_trained_once(found):
    add, results, settings = found
    seeds = [SEED, *settings.more_seeds]
    add("full", 0.0, seeds)
    add("high-only", 0.15, seeds)
    add("no-warmup", 0.15, seeds)
    add("low-only", 0.15)
    claim = verdict(results(), settings, "C12")
    assert [(one.verdict, one.images_only) for one in claim.comparisons][:2] == [(FAILS, False), (FAILS, True)]
    assert claim.verdict == FAILS and not claim.images_only
    add("high-only", 0.0, seeds)
    claim = verdict(results(), settings, "C12")
    assert claim.verdict == FAILS and claim.images_only


def test_nothing_is_about_images_only_where_all_was_trained_often(found):
    add, results, settings = found
    for variant, shift in (("full", 0.15), ("high-only", 0.05), ("low-only", 0.0), ("no-warmup", 0.1)):
        add(variant, shift, [SEED, *settings.more_seeds])
    summary = summarise(results(), settings)
    claim = next(one for one in summary["claims"] if one["id"] == "C12")
    assert claim["verdict"] == HOLDS and not claim["images_only"]
    assert "their intervals are over images only" not in render(summary)


def test_every_seed_has_its_own_numbers(found):
    add, results, settings = found
    other = settings.more_seeds[0]
    add("full", 0.15)
    add("full", 0.05, [other])
    entry = summarise(results(), settings)["variants"]["full"]
    gains = [entry["by_seed"][str(seed)]["bd_score"]["mean"]["value"] for seed in (SEED, other)]
    assert gains[0] > gains[1] + 1 and entry["bd_score"]["mean"]["value"] == pytest.approx(sum(gains) / 2)
    assert len(entry["by_seed"][str(other)]["curve"]) == len(QUALITIES)


def test_a_stale_main_run_is_passed_over(found, tmp_path):
    add, results, settings = found
    add("full", 0.1)
    rates = tmp_path / "results/rate/elic/rates.json"
    content = read_json(rates)
    content["styles"]["bench"]["images"][0] = "another"
    write_json(rates, content)
    read = results()
    assert list(read.stale) == ["elic-micro-llava"] and not read.grounds
    assert render(summarise(read, settings))


@pytest.mark.parametrize(
    ("values", "low", "high", "said"),
    [
        ((1, 0.5, 2), 0, np.inf, HOLDS),
        ((1, -0.5, 2), 0, np.inf, NOISE),
        ((-1, -2, -0.5), 0, np.inf, FAILS),
        ((0, -1, 1), -2, 2, HOLDS),
        ((0, -3, 1), -2, 2, NOISE),
        ((5, 3, 6), -2, 2, FAILS),
        ((np.nan, 0, 0), 0, np.inf, INCOMPARABLE),
        ((1, 0.5, np.nan), 0, np.inf, NOISE),
        ((-1, -2, -0.5), -np.inf, np.inf, SHOWN),
    ],
)
def test_the_rule(values, low, high, said):
    value, first, last = values
    resamples = np.array([value, *np.linspace(first, last, 1001)])
    number = Number(lambda _: resamples)
    assert Expectation("x", number, "points", low, high).check(None).verdict == said


def test_the_page_and_the_terminal_show_every_claim(found):
    add, results, settings = found
    add("full", 0.15)
    add("no-adapter", 0.0)
    add("bridge-d1", 0.1, drops=(0.3, 0.2, 0.4))
    summary = summarise(results(), settings)
    page = render(summary)
    console = Console(record=True, width=160)
    print_verdicts(summary, console)
    said = console.export_text()
    for claim in ("C1", "C2", "C7", "C9", "C11", "C12", "C13", "C14", "C20", "C21", "C22"):
        assert f'id="claim-{claim}"' in page
        assert claim in said
    drawn = claim_figures(summary)
    assert page.count("<svg") == 3 + sum(map(len, drawn.values()))
    assert [len(drawn[claim]) for claim in ("C1", "C2", "C13")] == [2, 2, 0]
    assert "full" in said and "No results of" in said and "within noise" in said
    assert render(summary) == page  # equal inputs, equal bytes
    entry = summary["variants"]["bridge-d1"]
    assert entry["levels"]["high"]["value"] > entry["levels"]["low"]["value"]
    assert entry["categories"].keys() == {"of low", "of high", "of cross"}


def test_what_compression_costs_is_told_per_level_and_task(found):
    add, results, settings = found
    add("full", 0.15)
    add("bridge-d1", 0.0)
    summary = summarise(results(), settings)
    alone = summary["anchors"]["elic-micro-llava"]["drops"]
    right = {q: np.array(values) for q, values in answers(0, SEED).items()}
    level = np.array([question["level"] for question in questions()])
    for name, points in alone.items():
        wanted = [100 * (1 - right[q][level == name].mean()) for q in QUALITIES]
        assert [point["value"] for point in points] == pytest.approx(wanted)
        assert all(point["low"] <= point["value"] <= point["high"] for point in points)
    tasks = summary["task_drops"]
    assert len(tasks["bpp"]) == len(QUALITIES)  # equal files
    asked = np.array([question["benchmark"] == "mmbench" for question in questions()])
    for method, shift in (("codec alone", 0.0), ("bridge-d1", 0.0), ("full", 0.15)):
        right = {q: np.array(values) for q, values in answers(shift, SEED).items()}
        wanted = np.mean([100 * (1 - right[q][asked & (level == "low")].mean()) for q in QUALITIES])
        assert tasks["methods"][method]["of low"]["value"] == pytest.approx(wanted)


def test_at_rates_that_are_not_shared_no_task_is_compared(found):
    add, results, settings = found
    add("full", 0.15, factor=1000)
    assert summarise(results(), settings)["task_drops"] is None


def test_a_figure_stands_alone_as_a_file(found):
    add, results, settings = found
    add("full", 0.15)
    for drawn in claim_figures(summarise(results(), settings)).values():
        for _, svg in drawn:
            root = ElementTree.fromstring(standalone(svg).encode())
            assert root.tag == "{http://www.w3.org/2000/svg}svg" and "--cotam:" in root[0].text


def test_a_run_is_written_into_the_docs(found, tmp_path):
    add, results, settings = found
    add("full", 0.15)
    add("no-adapter", 0.0)
    page, run, kept = tmp_path / "page.md", tmp_path / "run", tmp_path / "kept"
    page.write_text("<!-- CLAIMS -->\n<!-- /CLAIMS -->\nWords.\n<!-- VARIANTS -->\nold\n<!-- /VARIANTS -->\n")
    with pytest.raises(CotamError, match="has no verdicts; run `prefect deployment run ablations/local --watch` first"):
        document(run, page, kept)
    summary = summarise(results(), settings)
    write_json(run / "verdicts.json", summary)
    (run / "index.html").write_text(render(summary))
    document(run, page, kept)
    lines = page.read_text().splitlines()
    rows = [line for line in lines if line.startswith("| `")]
    assert [row.split("|")[1].strip() for row in rows] == ["`full`", "`no-adapter`"]
    assert sum(line.startswith("| **C11: ") for line in lines) == 1
    assert "Words." in lines and "old" not in lines
    assert (kept / "index.html").read_text() == render(summary)
    assert read_json(kept / "verdicts.json")["claims"] == summary["claims"]
    page.write_text("no marks")
    with pytest.raises(CotamError, match="has no lines"):
        document(run, page, kept)


def test_the_docs_show_the_run_that_is_kept():
    kept, page = read_json(KEPT / "verdicts.json"), PAGE.read_text(encoding="utf-8")
    assert claims_table(kept) in page and variants_table(kept) in page, "run `python -m benchmarks.ablation_tables`"
    tiles = read_json(KEPT / "world.json")
    assert claims_table(tiles, TILES) in page and variants_table(tiles) in page, "the same"


def test_what_was_found_of_tiles_is_written_beside_it(tmp_path):
    variants = {"variants": "{full: {}, global: {guidance: {scope: global}, adapter_of: full}}"}
    add, results, settings = made_up(tmp_path, config.load(overrides=OVERRIDES | variants))
    add("full", 0.15)
    add("global", 0.05)
    page, run, kept = tmp_path / "page.md", tmp_path / "run", tmp_path / "kept"
    kept.mkdir()
    page.write_text("<!-- TILES -->\n<!-- /TILES -->\n")
    with pytest.raises(CotamError, match="profile=world"):
        document_tiles(run, page, kept)
    write_json(run / "verdicts.json", summarise(results(), settings))
    document_tiles(run, page, kept)
    rows = [line for line in page.read_text().splitlines() if line.startswith("| ")]
    assert [row.split("|")[1].strip() for row in rows if "`" in row] == ["`full`", "`global`"]
    assert [row for row in rows if row.startswith("| **")] == [row for row in rows if "C13: holds" in row]
