"""Variants: mistakes are refused before anything runs, and runs share what is the same."""

import pytest

from components import config, variant_checks
from components.errors import CotamError
from components.paths import ROOT
from components.steps import declared, find, instances
from components.variant_checks import check_models
from components.variants import check_layers, choose, find_run, runs, settings_of

SEED = config.load().seed


def load(variants: str, **more: str) -> config.Settings:
    overrides = {"variants": variants, "more_seeds": "[]"} | {key.replace("__", "."): v for key, v in more.items()}
    return config.load(overrides=overrides)


def run(settings, variant, seed=SEED):
    return find_run(settings, variant, seed)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ("{guidance: {kk: 0.5}}", "guidance.kk is not a setting; did you mean guidance.k?"),
        ("{metod: mft}", "metod is not a setting; did you mean variants.bad.method?"),
        ("{method: magic}", "method must be 'cotam'"),
        ("{guidance: {k: big}}", 'guidance.k must be a number, not "big".'),
        ("{guidance: {levels: 4}}", "guidance.levels must be 1, 3, 5 or 7, not 4."),
        ("{adapter: {heads: 3}}", "adapter.width must be a multiple of heads (3)"),
        ("{adapter: {lambda_low: 0.0, lambda_high: 0.0}}", "adapter.lambda_low and lambda_high must not both be 0"),
        ("{adapter: {warmup_epochs: 0, joint_epochs: 0}}", "adapter.joint_epochs and warmup_epochs must not both be 0"),
        ("{adapter: {warmup_epochs: 0, warmup_layer: 2}}", "adapter.warmup_layer has no meaning where"),
        ("{baselines: {bridge: {layr: 2}}}", "baselines.bridge.layr is not a setting; did you mean"),
        ("{codec: jpeg2000}", "codec names jpeg2000, but there is no codec.jpeg2000."),
        ("{mllm: gpt}", "mllm names gpt, but there is no mllm.gpt."),
        ("{receive: picture, adapter: {blocks: 2}}", "adapter has no meaning where receive is picture"),
        ("{receive: picture, adapter_of: full}", "adapter_of has no meaning where receive is picture"),
        ("{receive: adapter, method: mft}", "receive says what becomes of CoTAM's adapter, which mft does not have."),
        ("{method: bridge-d1, adapter: {blocks: 2}}", "adapter.blocks has no meaning for bridge-d1; it reads batch,"),
        ("{method: icmh-adapt, adapter: {batch: 8}}", "adapter.batch has no meaning for icmh-adapt; it reads"),
        ("{method: cft, adapter: {batch: 8}}", "adapter.batch has no meaning for cft; it reads qualities, draws"),
        ("{method: mft, adapter: {lambda_high: 2.0}}", "adapter.lambda_high has no meaning for mft; it reads batch,"),
        (
            "{method: mft, baselines: {mllm_tuning: {full_learning_rate: 0.1}}}",
            "baselines.mllm_tuning.full_learning_rate has no meaning for mft, which does not read it.",
        ),
        ("{method: mft-full, baselines: {mllm_tuning: {rank: 2}}}", "baselines.mllm_tuning.rank has no meaning for"),
        ("{method: icmh-adapt, baselines: {tuning: {epochs: 1}}}", "baselines.tuning.epochs has no meaning for icmh-"),
        ("{method: cft, baselines: {tuning: {rate: 1.0}}}", "baselines.tuning.rate has no meaning for cft, which"),
        ("{adapter: {lambda_low: 0.0, warmup_layer: 0}}", "adapter.lambda_low is 0, but a warm-up at"),
        ("{evaluation: {qualities: [3]}}", "evaluation.qualities has a single value, and one point has no BD-rate;"),
        ("{method: avif, evaluation: {avif_qualities: [5]}}", "evaluation.avif_qualities has a single value"),
        ("{guidance: {levels: 1, k: 0.5}}", "guidance.k has no meaning where guidance.levels is 1"),
        ("{adapter_of: nobody}", "adapter_of names nobody, which is no variant."),
        ("{adapter_of: bad}", "adapter_of names the variant itself."),
        ("{adapter_of: sharing}", "adapter_of names sharing, which has no adapter of its own; name full."),
        ("{adapter_of: full, codec: dcae}", "adapter_of names full, whose adapter is for another codec (codec)."),
        ("{adapter_of: full, receive: adapter}", "adapter_of names full, whose adapter is for another use (receive)."),
        ("{adapter_of: full, adapter: {blocks: 2}}", "adapter_of contradicts adapter"),
        ("{adapter_of: tuned}", "adapter_of is for variants of cotam, whose codec is frozen; tuned is of cotam-ft."),
        ("{evaluation: {images: 3}}", "evaluation.images must be the same for all variants"),
        ("{method: avif, codec: dcae}", "codec has no meaning for avif"),
        ("{method: avif, evaluation: {qualities: [1]}}", "evaluation.qualities has no meaning for avif, whose"),
        ("{evaluation: {avif_qualities: [1]}}", "evaluation.avif_qualities has no meaning for cotam, whose"),
        ("{method: cotam-ft, codec: dcae}", "codec names dcae, but cotam-ft starts from the main run's adapter, and"),
        ("{method: cotam-ft, receive: adapter}", "receive must be full for cotam-ft"),
        ("{method: cotam-ft, receive: picture}", "receive must be full for cotam-ft"),
        ("{method: cotam-ft, adapter: {blocks: 2}}", "adapter.blocks has no meaning for cotam-ft, whose adapter is"),
        ("{baselines: {tuning: {epochs: 1}}}", "baselines.tuning has no meaning for cotam; it reads none."),
        (
            "{method: bridge-d3, baselines: {cft: {epochs: 2}}}",
            "baselines.cft has no meaning for bridge-d3; of baselines it reads bridge and tuning.",
        ),
        ("{guidance: {tower: pretrained/clip/other}}", "guidance.tower must be the same for all variants"),
        ("{guidance: {levels: 1, tower: x}}", "guidance.tower must be the same for all variants"),
    ],
)
def test_a_wrong_variant_is_one_sentence_that_names_it_and_the_key(entry, sentence):
    others = "full: {}, sharing: {adapter_of: full}, tuned: {method: cotam-ft}"
    with pytest.raises(CotamError) as error:
        load(f"{{{others}, bad: {entry}}}")
    assert str(error.value).startswith(f"params.yaml: variants.bad.{sentence}"), error.value
    assert "\n" not in str(error.value) and not str(error.value).endswith("?.")


def test_what_an_entry_may_say_of_its_method():
    load("{one: {method: icmh-adapt, adapter: {lambda_high: 2.0, qualities: [1, 2]}}}")
    load("{one: {method: mft, adapter: {batch: 8}, baselines: {mllm_tuning: {rank: 2}}}}")
    load("{one: {method: cft, baselines: {cft: {rate: 1.0}, tuning: {learning_rate: 0.001}}}}")
    load("{one: {adapter: {lambda_low: 0.0, warmup_epochs: 0}}}")
    load("{one: {method: cotam-ft, adapter: {lambda_low: 0.0}}}", adapter__warmup_layer="0")
    load("{one: {method: cotam-ft, codec: elic, adapter: {lambda_low: 0.5, draws: 1}}}")
    load("{one: {method: cotam-ft, codec: dcae}}", codecs="[elic, dcae]")
    load("{one: {method: cft, guidance: {levels: 1}, baselines: {mllm_tuning: {questions: 1}, tuning: {batch: 8}}}}")
    load("{one: {method: avif, evaluation: {avif_qualities: [1, 2]}}}")


def test_naming_the_default_codec_and_mllm_is_no_other_codec():
    entry = "{codec: elic, mllm: micro-llava, guidance: {k: 0.5}, adapter_of: full}"
    settings = load(f"{{full: {{}}, same: {entry}}}")
    assert run(settings, "same").model == run(settings, "full").model


def test_another_mllm_does_not_share_an_adapter():
    mllms = "{micro-llava: {weights: a}, other: {weights: b}}"
    with pytest.raises(CotamError, match="for the tower of another MLLM"):
        load("{full: {}, bad: {mllm: other, adapter_of: full}}", mllm=mllms)


def test_layers_that_the_tower_does_not_have_are_refused():
    check_layers(config.load(), ROOT)
    with pytest.raises(CotamError, match=r"variants\.deep\.guidance\.layers names layer 12, .* has layers 0 to 11\."):
        check_layers(load("{deep: {guidance: {layers: [0, 12]}}}"), ROOT)


@pytest.mark.parametrize(
    ("entry", "more", "sentence"),
    [
        ("{adapter: {warmup_layer: 50}}", {}, "adapter.warmup_layer is 50, but the tower of micro-llava has 12."),
        ("{method: bridge-d1, baselines: {bridge: {layer: 11}}}", {}, "baselines.bridge.layer is 11, but micro-llava"),
        ("{method: bridge-d3, baselines: {bridge: {heads: 3}}}", {}, "baselines.bridge.heads is 3, which does not"),
        ("{method: mft}", {"data__source": "data/mine"}, "method is mft, which learns from questions"),
        ("{method: cft}", {"data__source": "data/mine"}, "method is cft, which learns from questions"),
    ],
)
def test_what_models_and_data_cannot_do_is_refused_of_those_that_are_chosen(entry, more, sentence):
    settings = load(f"{{full: {{}}, bad: {entry}}}", **more)
    check_models(settings, ["full"], ROOT)
    with pytest.raises(CotamError) as error:
        check_models(settings, ["full", "bad"], ROOT)
    assert str(error.value).startswith(f"params.yaml: variants.bad.{sentence}"), error.value


def test_all_that_ships_can_run():
    check_models(config.load(), config.load().variants, ROOT)
    world = config.load(ROOT / "profiles/world.yaml")
    check_models(world, world.variants, ROOT)
    tiled = load("{one: {method: bridge-d1, mllm: micro-internvl, baselines: {bridge: {layer: 11}}}}")
    check_models(tiled, ["one"], ROOT)  # an InternVL reads its tower's last layer


def test_avif_needs_a_pillow_that_has_it(monkeypatch):
    monkeypatch.setattr(variant_checks.features, "check", lambda name: name != "avif")
    with pytest.raises(CotamError, match=r"variants\.avif\.method is avif, but this Pillow"):
        check_models(config.load(), ["avif"], ROOT)


def test_a_repeated_seed_is_refused():
    with pytest.raises(CotamError, match="more_seeds repeats a seed, or holds seed itself"):
        config.load(overrides={"more_seeds": f"[{SEED}]"})


def test_a_variant_changes_what_it_says_and_nothing_else():
    neck = "neck: {method: bridge-d1, baselines: {bridge: {layer: 1}}}"
    settings = load(f"{{one: {{guidance: {{k: 0.5}}, adapter: {{blocks: 2}}}}, {neck}}}")
    changed = settings_of(settings, run(settings, "one"))
    plain = settings.model_dump(mode="json")
    assert changed["guidance"] == plain["guidance"] | {"k": 0.5}
    assert changed["adapter"] == plain["adapter"] | {"blocks": 2}
    of_neck = settings_of(settings, run(settings, "neck"))["baselines"]
    assert of_neck["bridge"] == plain["baselines"]["bridge"] | {"layer": 1}
    assert {key: changed[key] for key in plain if key not in ("guidance", "adapter", "variants")} == {
        key: plain[key] for key in plain if key not in ("guidance", "adapter", "variants")
    }


def test_what_the_main_run_has_is_not_made_again():
    settings = load("{full: {}, picture: {receive: picture}, k: {guidance: {k: 0.5}, adapter_of: full}}")
    full, picture, k = (run(settings, name) for name in ("full", "picture", "k"))
    assert (full.trains, full.encodes) == (False, False)
    assert (full.model, full.streams, full.coded_as) == ("results/joint/elic-micro-llava", "results/rate/elic", "cotam")
    assert (picture.trains, picture.encodes, picture.model, picture.coded_as) == (False, False, "", "cotam")
    assert (k.trains, k.encodes, k.model) == (False, True, full.model)
    assert k.streams == f"results/variant-rates/k-{SEED}"


def test_plain_files_are_those_of_the_codec_alone():
    settings = load("{plain: {guidance: {levels: 1}}, bridge: {method: bridge-d1, guidance: {levels: 1}}}")
    for name in ("plain", "bridge"):
        found = run(settings, name)
        assert (found.encodes, found.guided) == (False, False)
        assert (found.streams, found.coded_as) == ("results/rate/elic", "elic")
        assert found.trains and found.model == f"results/variant-training/{name}-{SEED}/model"


def test_equal_trainings_and_equal_files_are_made_once():
    entry = "{guidance: {k: 0.5}, adapter: {blocks: 2}}"
    settings = load(f"{{one: {entry}, two: {entry}, other: {{guidance: {{k: 0.5}}}}}}")
    one, two, other = (run(settings, name) for name in ("one", "two", "other"))
    assert (one.trains, two.trains, other.trains) == (True, False, True)
    assert two.model == one.model and two.trained_by == one.name
    assert (one.encodes, two.encodes, other.encodes) == (True, False, False)
    assert {two.coded_by, other.coded_by} == {one.name}


def test_a_codec_of_ones_own_makes_ones_own_files():
    settings = load("{d3: {method: bridge-d3, guidance: {levels: 1}}}", more_seeds="[1]")
    for seed in (SEED, 1):
        found = run(settings, "d3", seed)
        assert found.encodes and found.streams == f"results/variant-rates/d3-{seed}"


def test_seeds_train_again_and_share_files():
    entries = "{full: {}, k: {guidance: {k: 0.5}, adapter_of: full}, picture: {receive: picture}}"
    settings = load(entries, more_seeds="[1]")
    assert [found.name for found in runs(settings)] == [f"full-{SEED}", "full-1", f"k-{SEED}", "k-1", f"picture-{SEED}"]
    assert run(settings, "full", 1).trains and run(settings, "k", 1).model == run(settings, "full", 1).model
    assert not run(settings, "k", 1).encodes and run(settings, "k", 1).coded_by == f"k-{SEED}"


def test_fine_tuning_goes_on_from_the_adapter_of_its_seed():
    settings = load("{tuned: {method: cotam-ft}, full: {}}", more_seeds="[1]")
    assert run(settings, "tuned").start == "results/joint/elic-micro-llava/adapter"
    assert run(settings, "tuned", 1).start == f"{run(settings, 'full', 1).model}/adapter"
    alone = load("{tuned: {method: cotam-ft}}", more_seeds="[1]")  # nobody trains an adapter with this seed
    assert run(alone, "tuned", 1).start == run(alone, "tuned").start
    assert run(settings, "full").start == ""


def test_another_codec_than_the_main_runs_is_trained_and_encoded():
    settings = load("{dcae: {codec: dcae}, alone: {codec: dcae, receive: picture, guidance: {levels: 1}}}")
    assert run(settings, "dcae").trains and run(settings, "dcae").encodes
    assert run(settings, "alone").is_codec_alone and run(settings, "alone").encodes


def test_variants_are_chosen_by_pattern():
    settings = load("{full: {}, no-a: {receive: picture}, no-b: {guidance: {levels: 1}}}", more_seeds="[1]")
    assert [found.name for found in choose(settings, ["no-*"], [SEED])] == [f"no-a-{SEED}", f"no-b-{SEED}"]
    assert [found.name for found in choose(settings, ["no-*"], [1])] == [f"no-a-{SEED}", "no-b-1"]
    with pytest.raises(CotamError, match=r"No variant is called yes-\*"):
        choose(settings, ["no-*", "yes-*"], [SEED])
    with pytest.raises(CotamError, match=r"The seed 5 is not in params\.yaml"):
        choose(settings, ["*"], [5])
    with pytest.raises(CotamError, match="There is no variant magic"):
        find_run(settings, "magic", SEED)


def test_a_step_of_a_variant_sees_the_variants_settings():
    settings = load("{one: {guidance: {k: 0.5}, adapter: {blocks: 2}}}", more_seeds="[1]")
    train = find("train-cotam")
    [first, second] = instances(train, settings)
    seen = declared(train, settings, second)
    assert (seen["guidance"]["k"], seen["adapter"]["blocks"], seen["seed"]) == (0.5, 2, 1)
    assert seen["variants"] == {"one": {"guidance": {"k": 0.5}, "adapter": {"blocks": 2}}}
    assert first["name"] == f"one-{SEED}" and "scenes" not in seen


def test_the_shipped_variants_are_the_papers_baselines_and_ablations():
    """What the paper compares (4.2, 4.3, A.5) and varies (Fig. 10, 11, 17, 18; Tables 3 and 4), by what it changes."""
    settings = config.load()
    here = [settings_of(settings, run) | {"run": run} for run in runs(settings) if run.seed == SEED]

    def varied(section, key):
        return {tuple(found) if isinstance(found := one[section][key], list) else found for one in here}

    assert {one["run"].method for one in here} == set(config.VARIANT_METHODS)
    assert {one["run"].receive for one in here} == {"full", "adapter", "picture"}
    assert {one["run"].codec for one in here} == {"elic", "dcae"}
    assert varied("guidance", "levels") == {1, 3, 5, 7}
    assert {min(varied("guidance", "k")), max(varied("guidance", "k"))} == {0.3, 1.2}
    assert len([k for k in varied("guidance", "k") if 0.45 <= k <= 0.85]) >= 4
    layers = varied("guidance", "layers")
    assert {(0, 1, 2), (0,)} <= layers and any(min(one) > 2 for one in layers)
    assert varied("adapter", "lambda_low") == {0.0, settings.adapter.lambda_low}
    assert varied("adapter", "lambda_high") == {0.0, settings.adapter.lambda_high}
    assert 0 in varied("adapter", "warmup_epochs")
    assert len(varied("adapter", "blocks")) >= 3 and len(varied("adapter", "start")) == 2
    world = config.load(ROOT / "profiles/world.yaml")
    scopes = {settings_of(world, run)["guidance"]["scope"] for run in runs(world)}
    assert scopes == {"global", "local", "hierarchical"}


def test_most_variants_share_an_adapter():
    settings = config.load()
    trained = [found for found in runs(settings) if found.trains and found.seed == SEED]
    assert len(trained) < len(settings.variants) / 2 + 3
