"""The ablation pipeline's steps on a small project: real trainings, files and questions, with tiny models."""

import json

import numpy as np
import pytest
import torch
import yaml

from components import config, variants
from components.adapter import LatentAdapter
from components.codec import Codec
from components.config_variants import METHODS
from components.errors import CotamError
from components.evaluation.pictures import benchmark_pictures
from components.evaluation.streams import Setting, Streams
from components.files import read_json, sha256_tree
from components.mllm import load_mllm
from components.steps import ABLATION_STEPS, instances, run_step
from components.training.unseen import WithoutPictures
from tests.small_checkout import CODEC, MLLM, scenes, write_checkout, write_shards, write_small_benchmarks

SETTINGS = {
    "adapter.qualities": "[1, 8]",
    "adapter.warmup_epochs": "1",
    "adapter.joint_epochs": "2",
    "adapter.batch": "8",
    "adapter.draws": "1",
    "baselines.modulation.channels": "4",
    "baselines.modulation.epochs": "1",
    "baselines.tuning.batch": "8",
    "baselines.tuning.epochs": "1",
    "evaluation.qualities": "[1, 8]",
    "evaluation.avif_qualities": "[10, 60]",
    "evaluation.bootstrap": "20",
    "variants": """{
        full: {},
        no-adapter: {receive: picture},
        no-reconstruction: {receive: adapter},
        no-guidance: {guidance: {levels: 1}, adapter_of: full},
        deep: {adapter: {blocks: 2, start: random, warmup_epochs: 0}},
        low-only: {adapter: {lambda_high: 0.0, joint_epochs: 0}},
        levels-7: {guidance: {levels: 7, k: 0.3}, adapter_of: full},
        avif: {method: avif},
        cotam-ft: {method: cotam-ft},
        icmh-adapt: {method: icmh-adapt, guidance: {levels: 1}},
    }""",
}
SEED = config.load().seed
OWN = ("cotam-ft", "icmh-adapt")  # whose files are made by a codec of their own


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """Everything run, in the order of the pipeline."""
    paths = write_checkout(tmp_path_factory.mktemp("checkout"), SETTINGS)
    write_shards(paths.shards, scenes(24))
    write_small_benchmarks(paths, 4)
    for step in ("rate", "warmup", "joint", "evaluate"):
        run_step(step, paths=paths)
    settings = config.load(paths.root / "params.yaml")
    for step in ABLATION_STEPS:
        if step.runs:
            for instance in instances(step, settings):
                run_step(step.name, paths=paths, variant=instance["variant"])
    run_step("verdicts", paths=paths)
    return paths


def scores(paths, variant):
    return read_json(paths.root / f"results/variants/{variant}-{SEED}/scores.json")


def test_only_what_differs_was_trained_and_encoded(checkout):
    trained = {path.name for path in (checkout.root / "results/variant-training").iterdir()}
    coded = {path.name for path in (checkout.root / "results/variant-rates").iterdir()}
    assert trained == {f"{name}-{SEED}" for name in ("no-reconstruction", "deep", "low-only", *OWN)}
    assert coded == {f"{name}-{SEED}" for name in ("levels-7", "avif", *OWN)}


@pytest.mark.parametrize("variant", OWN)
def test_files_of_an_own_codec_are_read_by_it_alone(checkout, variant):
    model = checkout.root / f"results/variant-training/{variant}-{SEED}/model"
    streams = Streams(checkout.root / f"results/variant-rates/{variant}-{SEED}/streams.zip")
    content = next(iter(streams.files(Setting("cotam", "8"), "bench").values()))
    Codec.from_pretrained(model / "codec").decode([content])
    with pytest.raises(CotamError, match="was made by codec"):
        Codec.from_pretrained(checkout.root / "pretrained/codec/elic-micro").decode([content])
    assert (content[3] >> 4 & 3 == 0) == (variant == "icmh-adapt")  # no map
    assert scores(checkout, variant)["method"] == variant


def test_a_record_says_how_it_was_made(checkout):
    settings = config.load(checkout.root / "params.yaml")
    deep, levels, avif = (scores(checkout, name) for name in ("deep", "levels-7", "avif"))
    assert deep["changes"]["adapter"] == {"blocks": 2, "start": "random", "warmup_epochs": 0}
    assert (deep["settings"]["adapter"]["blocks"], deep["settings"]["adapter"]["joint_epochs"]) == (2, 2)
    assert deep["settings"]["guidance"] == settings.guidance.model_dump(mode="json")
    assert (levels["settings"]["guidance"]["levels"], levels["settings"]["guidance"]["k"]) == (7, 0.3)
    assert levels["settings"].keys() == {"guidance", "data", "scenes"} and levels["changes"]["adapter_of"] == "full"
    assert levels["settings"]["scenes"] == settings.scenes.model_dump(mode="json")
    assert avif["settings"] == {} and avif["changes"] == {"method": "avif"}
    assert scores(checkout, "cotam-ft")["settings"]["baselines"]["tuning"]["epochs"] == 1
    assert scores(checkout, "icmh-adapt")["settings"]["adapter"].keys() == {*METHODS["icmh-adapt"].adapter_keys}


def test_a_record_names_the_models_by_their_content(checkout):
    weights = read_json(checkout.root / "data/weights.json")
    main, deep, plain, tuned = (
        scores(checkout, name)["made_of"] for name in ("full", "deep", "no-adapter", "icmh-adapt")
    )
    base = {"codec": weights["codec"][CODEC], "mllm": weights["mllm"][MLLM]}
    assert main == base | {
        "tower": weights["tower"],
        "model": {"adapter": sha256_tree(checkout.joint(CODEC, MLLM) / "adapter")},
    }
    assert plain == base | {"tower": weights["tower"]}
    assert deep["model"].keys() == {"adapter"} and deep["model"] != main["model"]
    assert tuned.keys() == {*base, "model"} and tuned["model"].keys() == {"codec"}
    assert scores(checkout, "no-guidance")["made_of"]["model"] == main["model"]
    assert scores(checkout, "avif")["made_of"] == {"mllm": base["mllm"]}


def test_full_is_the_main_run(checkout):
    main = read_json(checkout.scores(CODEC, MLLM) / "scores.json")["styles"]["bench"]
    assert scores(checkout, "full")["scores"] == main["scores"]["cotam"]
    assert scores(checkout, "no-guidance")["rates"]["files"] == (
        read_json(checkout.rate(CODEC) / "rates.json")["styles"]["bench"]["methods"][CODEC]
    )
    assert scores(checkout, "full")["questions"] == main["questions"]


def test_training_a_main_run_as_a_variant_gives_its_adapter(checkout):
    """Both stages in one step are the two stages."""
    params = checkout.root / "params.yaml"
    before = params.read_text()
    raw = yaml.safe_load(before)
    raw["variants"]["again"] = {"guidance": {"k": raw["guidance"]["k"] + 1e-9}}  # another, but in no cell's level
    try:
        params.write_text(yaml.safe_dump(raw))
        run_step("train-cotam", paths=checkout, variant="again")
    finally:
        params.write_text(before)
    again = LatentAdapter.load(checkout.root / f"results/variant-training/again-{SEED}/model/adapter").state_dict()
    main = LatentAdapter.load(checkout.joint(CODEC, MLLM) / "adapter").state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in main.items())


def test_a_deeper_adapter_has_its_blocks(checkout):
    folder = checkout.root / f"results/variant-training/deep-{SEED}"
    assert LatentAdapter.load(folder / "model/adapter").config.blocks == 2
    assert "high" in json.loads((folder / "metrics.json").read_text())["training"]


def test_low_loss_alone_never_runs_the_tower_in_the_joint_stage(checkout):
    training = read_json(checkout.root / f"results/variant-training/low-only-{SEED}/metrics.json")["training"]
    assert training.keys() == {"loss", "low"}


def test_seven_levels_are_in_the_files(checkout):
    folder = checkout.root / f"results/variant-rates/levels-7-{SEED}"
    files = Streams(folder / "streams.zip").files(Setting("cotam", "1"), "bench")
    assert {content[2] >> 4 for content in files.values()} & {3, 4}
    decoded = Codec.from_pretrained(checkout.root / "pretrained/codec/elic-micro").decode(list(files.values()))
    assert max(int(one.level_map.max()) for one in decoded) > 2
    assert read_json(folder / "rates.json")["styles"]["bench"]["methods"].keys() == {"cotam"}


def test_without_reconstruction_the_picture_counts_for_nothing(checkout):
    adapter = LatentAdapter.load(checkout.root / f"results/variant-training/no-reconstruction-{SEED}/model/adapter")
    mllm = load_mllm(checkout.root / "pretrained/mllm/micro-llava")
    codec = Codec.from_pretrained(checkout.root / "pretrained/codec/elic-micro")
    pictures = list(benchmark_pictures(checkout.benchmarks / "bench").values())[:2]
    decoded = codec.decode(codec.encode(pictures, 8))
    views = mllm.decoded_views(decoded, adapter, alone=True)
    blank = [type(view)(torch.zeros_like(view.pixels_3HW), view.residual_ND, True) for view in views]
    seen, without = (mllm.family.embed(some) for some in (views, blank))
    assert torch.equal(seen, without)
    assert not torch.allclose(seen, mllm.family.embed(mllm.decoded_views(decoded, adapter)))


def test_training_without_pictures_sees_none():
    class Store:
        plan = None

        def __len__(self):
            return 3

        def order(self, epoch):
            return np.arange(3) + epoch

        def batch(self, epoch, examples):
            return {"decoded": torch.ones(len(examples), 2), "patches": torch.ones(len(examples), 2)}

        def sample(self):
            return self.batch(0, np.arange(3))

        def held_out(self, quality, size):
            yield self.batch(0, np.arange(size))

    hidden = WithoutPictures(Store())
    assert len(hidden) == 3 and hidden.order(1).tolist() == [1, 2, 3]
    for batch in (hidden.batch(0, np.arange(2)), hidden.sample(), *hidden.held_out(1, 2)):
        assert not batch["decoded"].any() and batch["patches"].all()


def test_the_verdicts_are_written_and_name_what_is_missing(checkout):
    found = read_json(checkout.root / "results/ablations/verdicts.json")
    assert not found["missing"]  # of the variants that this project has
    assert found["variants"]["full"]["bd_score"].keys() == {"mean", *found["benchmarks"]}
    by_id = {claim["id"]: claim for claim in found["claims"]}
    assert by_id["C9"]["comparisons"][0]["missing"] == "bridge-d3"
    assert (checkout.root / "results/ablations/index.html").stat().st_size > 10_000


def test_an_unknown_variant_or_step_is_one_sentence(checkout):
    with pytest.raises(CotamError, match="run with one of: --variant"):
        run_step("train-cotam", paths=checkout, variant="full")
    with pytest.raises(CotamError, match="run with one of: --variant"):
        run_step("evaluate-variant", paths=checkout, variant="magic")


def test_runs_are_named_as_dvc_names_them(checkout):
    settings = config.load(checkout.root / "params.yaml")
    assert variants.find_run(settings, "levels-7", SEED).name == f"levels-7-{SEED}"
