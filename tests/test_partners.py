"""What the flow `ablations` evaluates beside the chosen variants, so that these can be judged."""

import pytest

from components import config
from components.paths import ROOT
from components.reporting.ablation_claims import claims
from components.reporting.partners import with_partners
from components.variants import choose

SETTINGS = config.load()


def names(*patterns, settings=SETTINGS):
    return {run.variant for run in choose(settings, list(patterns), [settings.seed])}


@pytest.mark.parametrize(
    ("patterns", "added"),
    [
        (["no-*", "k-*"], {"full"}),  # the example of docs/ablations.md
        (["k-*"], {"full", "no-guidance"}),
        (["mft"], {"full"}),
        (["grid-4"], {"full"}),  # in no claim
        (["dcae"], {"full", "dcae-alone"}),
        (["avif"], {"full"}),
        (["full"], set()),
        (["*"], set()),
    ],
)
def test_what_chosen_variants_are_held_against_is_added(patterns, added):
    chosen = names(*patterns)
    found = with_partners(SETTINGS, chosen)
    assert set(found) == chosen | added and added.isdisjoint(chosen)
    assert found == [name for name in SETTINGS.variants if name in found]


def test_with_the_documented_choice_whole_claims_are_measured():
    there = set(with_partners(SETTINGS, names("no-*", "k-*")))
    for wanted in ("C11", "C21"):
        [expectations] = (expectations for claim, _, expectations in claims(SETTINGS) if claim == wanted)
        sides = {one for expectation in expectations for pair in expectation.number.pairs for one in pair}
        assert sides - {None} <= there


def test_a_shared_adapter_brings_the_variant_that_it_is_of():
    world = config.load(ROOT / "profiles/world.yaml")
    assert with_partners(world, ["onevision-global"]) == ["full", "onevision", "onevision-global"]


def test_without_a_full_nothing_is_added():
    settings = config.load(overrides={"variants": "{seen: {receive: picture}}"})
    assert with_partners(settings, ["seen"]) == ["seen"]
