"""Every compared method's training, from shards to what it writes: what learns, what stays, what a kill leaves."""

import importlib
import json
import logging

import numpy as np
import pytest
import torch

from components import config
from components.adapter import LatentAdapter
from components.baselines.bridge import TransformNeck
from components.codec import Codec
from components.codec.folder import load_codec, model_id
from components.config import read_yaml
from components.data.sharding import shard_folder
from components.errors import CotamError
from components.files import sha256_tree
from components.mllm import load_mllm
from components.mllm.overlay import lay_over
from components.mllm.reception import METHODS, load_reception
from components.scenes import step_render
from components.step_inputs import Params, StepInputs
from components.training import loop
from components.training.adapter_stage import adapter_config
from components.training.codec_tuning import fit_prices
from components.training.method_stage import MethodStage
from components.variants import find_run
from components.vision import load_tower
from tests.small_checkout import CODEC, MLLM, scenes, write_checkout, write_shards

SCENES = 40
SEED = config.load().seed
SETTINGS = {
    "scenes.images": str(SCENES),
    "adapter.batch": "8",
    "adapter.draws": "1",
    "adapter.held_out": "6",
    "adapter.qualities": "[1, 8]",
    "baselines.bridge.heads": "2",
    "baselines.bridge.layer": "1",
    "baselines.bridge.start_epochs": "1",
    "baselines.bridge.epochs": "[1, 1, 2]",
    "baselines.modulation.channels": "4",
    "baselines.modulation.epochs": "1",
    "baselines.tuning.epochs": "1",
    "baselines.tuning.batch": "8",
    "baselines.mllm_tuning.rank": "2",
    "baselines.mllm_tuning.epochs": "1",
    "baselines.mllm_tuning.questions": "2",
}
WRITTEN = {
    "bridge-d1": {"neck"},
    "bridge-d3": {"codec", "neck"},
    "cotam-ft": {"adapter", "codec"},
    "icmh-adapt": {"codec"},
    "mft": {"mllm"},
    "mft-full": {"mllm"},
    "cft": {"codec"},
}


def labelled_clip(folder, llava):
    """A random CLIP with words, whose image side is the tower of `llava`."""
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig

    from pipelines.pretrain.words import BOS, EOS, PAD, word_tokenizer
    from tests.models import WIDTH, _vision_config, tiny_image_processor

    tokenizer = word_tokenizer()
    text = CLIPTextConfig(
        hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=1, num_attention_heads=4,
        vocab_size=len(tokenizer), max_position_embeddings=80, projection_dim=WIDTH,
        bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD,
    )  # fmt: skip
    torch.manual_seed(4)
    seen = _vision_config().to_dict()
    model = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=seen, projection_dim=WIDTH))
    model.vision_model.load_state_dict(load_tower(llava).model.state_dict())
    for one in (model, tokenizer, tiny_image_processor()):
        one.save_pretrained(folder)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    paths = write_checkout(tmp_path_factory.mktemp("checkout"), SETTINGS)
    labelled_clip(paths.root / "pretrained/clip/micro", paths.root / "pretrained/mllm/micro-llava")
    paths.scenes.mkdir(parents=True)
    settings = config.load(paths.root / "params.yaml")
    step_render.run(StepInputs(Params(settings.model_dump(mode="json")), paths.work, paths.scenes, paths=paths))
    shard_folder(paths.scenes, paths.shards, seed=7, shard_images=25, name="data/scenes")
    codec = Codec.from_pretrained(paths.root / "pretrained/codec/elic-micro")
    tower = load_tower(paths.root / "pretrained/mllm/micro-llava")
    torch.manual_seed(9)
    LatentAdapter(adapter_config(codec, tower, settings.adapter)).save(paths.joint(CODEC, MLLM) / "adapter")
    return paths


class Recorder:
    """A log that keeps what it is told."""

    def __init__(self):
        self.losses: list[float] = []

    def metric(self, name: str, value: float, step: int | None = None) -> None:
        if name == "loss":
            self.losses.append(value)


class Killer(Recorder):
    """A log that dies at a step."""

    def __init__(self, at: int):
        super().__init__()
        self.at = at

    def metric(self, name: str, value: float, step: int | None = None) -> None:
        super().metric(name, value, step)
        if len(self.losses) == self.at:
            raise KeyboardInterrupt


def train(paths, method, place, log=None, settings=None):
    """Run a method's training in the checkout; return what it wrote."""
    raw = read_yaml(paths.root / "params.yaml")
    for key, value in (settings or {}).items():
        config.override(raw, key, value)
    out, work = place / "out", place / "work"
    out.mkdir(parents=True, exist_ok=True)
    work.mkdir(exist_ok=True)
    variant = config.load(paths.root / "params.yaml", overrides={"variants": f"{{one: {{method: {method}}}}}"})
    run = find_run(variant, "one", SEED)
    inputs = StepInputs(Params(raw), work, out, CODEC, MLLM, run, paths, log or Recorder())
    importlib.import_module(f"components.training.methods.{method.replace('-', '_')}").train(inputs)
    return out


@pytest.fixture(scope="module")
def trained(checkout, tmp_path_factory):
    """Every method: name -> what it wrote."""
    pretrained = sha256_tree(checkout.root / "pretrained")
    found = {method: train(checkout, method, tmp_path_factory.mktemp(method)) for method in WRITTEN}
    assert sha256_tree(checkout.root / "pretrained") == pretrained
    return found


def test_every_method_is_received(checkout, trained):
    assert set(METHODS) == {*WRITTEN, "cotam"}
    pictures = scenes(2, first=500)
    for method, out in trained.items():
        assert {path.name for path in (out / "model").iterdir()} == WRITTEN[method]
        metrics = json.loads((out / "metrics.json").read_text())
        assert set(metrics) == {"training", "validation"} and set(metrics["validation"]) == {"1", "8"}
        numbers = [*metrics["training"].values(), *(v for one in metrics["validation"].values() for v in one.values())]
        assert np.isfinite(numbers).all()
        folder = out / "model/codec"
        codec = Codec.from_pretrained(folder if folder.exists() else checkout.root / "pretrained/codec/elic-micro")
        mllm = load_mllm(checkout.root / "pretrained/mllm/micro-llava")
        if (out / "model/mllm").exists():
            lay_over(mllm, out / "model/mllm")
        decoded = codec.decode(codec.encode(pictures, 2))
        views = load_reception(method, out / "model", codec, mllm).views(decoded)
        assert len(mllm.answer(views, ["is there a circle ? answer yes or no ."] * 2)) == 2


@pytest.mark.parametrize("method", [method for method, parts in WRITTEN.items() if "codec" in parts])
def test_a_codec_that_has_learned_writes_real_streams(checkout, trained, method):
    folder = trained[method] / "model/codec"
    codec = Codec.from_pretrained(folder)
    pictures = scenes(3, first=700)
    levels = [np.array([[-1, 0], [1, 0]], np.int8), None, None]
    streams = codec.encode(pictures, [1, 5, 9], levels)
    expected = codec.reconstruct(pictures, [1, 5, 9], levels)
    for one, other in zip(codec.decode(streams), expected, strict=True):
        assert np.array_equal(one.latent, other.latent) and np.array_equal(one.image, other.image)
    base = load_codec(checkout.root / "pretrained/codec/elic-micro")
    with torch.no_grad():  # a checkerboard's convolution forgets its unused weights when it is first run
        base(torch.rand(1, 3, 64, 64), torch.zeros(1, 4, 4, dtype=torch.int64))
    before = base.state_dict()
    after = load_codec(folder).state_dict()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    if method == "icmh-adapt":
        assert not changed
        silent = [name for name in after if "_out." in name and not after[name].any()]
        assert not silent and set(after) > set(before)
    elif method == "bridge-d3":
        assert not any(name.startswith(("up.", "synthesis")) for name in changed)
        assert any(name.startswith("down.") for name in changed)
        assert any(name.startswith("entropy.") for name in changed)
    else:
        parts = {name.split(".")[0] for name in changed}
        assert parts >= {"down", "up", "latent_gain", "latent_inverse"}
        # cft has no rate in its loss, and rounding hides the rest.
        assert ("entropy" in parts) == (method == "cotam-ft")


def test_an_adapter_that_learned_beside_a_codec_is_that_codecs(checkout, trained):
    model = trained["cotam-ft"] / "model"
    found = LatentAdapter.load(model / "adapter").config
    tower = load_tower(checkout.root / "pretrained/mllm/micro-llava")
    assert (found.codec, found.tower) == (model_id(model / "codec"), tower.identity)
    mllm = load_mllm(checkout.root / "pretrained/mllm/micro-llava")
    main = Codec.from_pretrained(checkout.root / "pretrained/codec/elic-micro")
    with pytest.raises(CotamError, match=f"this one is {main.model_id}; use the adapter"):
        load_reception("cotam-ft", model, main, mllm)


def test_the_codec_stays_where_it_should(trained):
    for method in ("bridge-d1", "mft", "mft-full"):
        assert not (trained[method] / "model/codec").exists()
    assert TransformNeck.load(trained["bridge-d1"] / "model/neck").config.layer == 1


def test_an_mllm_that_has_learned_keeps_its_tower(checkout, trained):
    folder = checkout.root / "pretrained/mllm/micro-llava"
    before = load_mllm(folder).model.state_dict()
    for method in ("mft", "mft-full"):
        mllm = load_mllm(folder)
        lay_over(mllm, trained[method] / "model/mllm")
        after = mllm.model.state_dict()
        assert set(after) == set(before)
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert changed and not any("vision_tower" in name for name in changed)
        assert any("q_proj" in name for name in changed) and any("multi_modal_projector" in name for name in changed)
        assert any("embed_tokens" in name for name in changed) == (method == "mft-full")
        assert not any(parameter.requires_grad for parameter in mllm.model.parameters())
        assert not list((trained[method] / "model").rglob("*.bin"))


@pytest.mark.parametrize("method", ["cotam-ft", "mft", "bridge-d1"])
def test_a_killed_training_resumes_to_the_same_bits(checkout, trained, tmp_path, monkeypatch, method):
    train_loop = loop.train

    def often(*arguments, **options):
        return train_loop(*arguments, **options | {"every": 2})

    monkeypatch.setattr("components.training.method_stage.train", often)
    with pytest.raises(KeyboardInterrupt):
        train(checkout, method, tmp_path, Killer(at=4))
    resumed = Recorder()
    out = train(checkout, method, tmp_path, resumed)
    assert sha256_tree(out) == sha256_tree(trained[method])
    whole = Recorder()
    train(checkout, method, tmp_path / "whole", whole)
    assert 0 < len(resumed.losses) < len(whole.losses)


def test_bridge_learns_from_labels_first(checkout, tmp_path):
    log = Recorder()
    epochs = {"baselines.bridge.start_epochs": "0", "baselines.bridge.epochs": "[0, 2, 6]"}
    out = train(checkout, "bridge-d1", tmp_path, log, epochs)
    assert np.mean(log.losses[-4:]) < np.mean(log.losses[8:12])  # of features alone, the last phase
    validation = json.loads((out / "metrics.json").read_text())["validation"]
    assert set(validation["1"]) == {"high", "high_unadapted", "high_ratio"}


def test_a_neck_first_learns_the_state_that_it_stands_for(checkout, tmp_path):
    log = Recorder()
    settings = {"baselines.bridge.start_epochs": "8", "baselines.bridge.learning_rate": "0.01"}
    train(checkout, "bridge-d1", tmp_path, log, settings)
    assert np.mean(log.losses[28:32]) < 0.8 * np.mean(log.losses[:4])  # four steps an epoch


def test_without_scenes(checkout, tmp_path, caplog):
    """Photographs have no labels: Bridge does without, and who needs questions says so."""
    write_shards(tmp_path / "data/shards", scenes(20))
    (tmp_path / "pretrained").symlink_to(checkout.root / "pretrained")
    paths = type(checkout)(tmp_path)
    (tmp_path / "params.yaml").write_text((checkout.root / "params.yaml").read_text())
    with caplog.at_level(logging.WARNING):
        train(paths, "bridge-d1", tmp_path / "bridge", settings={"baselines.bridge.epochs": "[0, 0, 1]"})
    assert "trained on distillation alone" in caplog.text
    for method in ("mft", "cft"):
        with pytest.raises(CotamError, match=r"set data\.source to data/scenes"):
            train(paths, method, tmp_path / method)
    with pytest.raises(CotamError, match="does not exist"):  # no adapter to go on from
        train(paths, "cotam-ft", tmp_path / "ft")


def test_a_neck_that_does_not_fit_the_tower(checkout, tmp_path):
    with pytest.raises(CotamError, match=r"baselines\.bridge\.layer is 3, but the MLLM reads its tower's layer 3"):
        train(checkout, "bridge-d1", tmp_path, settings={"baselines.bridge.layer": "3"})
    with pytest.raises(CotamError, match=r"no multiple of baselines\.bridge\.heads \(3\)"):
        train(checkout, "bridge-d1", tmp_path, settings={"baselines.bridge.heads": "3"})


def test_other_mllms_weights_are_refused(checkout, trained, tmp_path):
    from tests.models import tiny_llava_folder

    mllm = load_mllm(checkout.root / "pretrained/mllm/micro-llava")
    with pytest.raises(CotamError, match="does not exist"):
        lay_over(mllm, tmp_path)
    with pytest.raises(CotamError, match="not of an MLLM's changed weights"):
        lay_over(mllm, trained["bridge-d1"] / "model/neck")
    smaller = load_mllm(tiny_llava_folder(tmp_path / "smaller"))
    smaller.model.model.language_model.layers = smaller.model.model.language_model.layers[:1]
    with pytest.raises(CotamError, match="was made for another MLLM"):
        lay_over(smaller, trained["mft-full"] / "model/mllm")


def test_prices_are_slopes():
    """Where the loss is a power of the rate along the qualities, the price of a bit is its derivative."""
    lambdas = np.array([0.0128, 0.0064, 0.0032, 0.0016])
    rates = lambdas**-0.5
    losses = 3 * lambdas**0.7  # L = 3 R^-1.4, so -dL/dR = 4.2 R^-2.4 = 4.2 lambda^1.2
    assert fit_prices(rates, losses, lambdas) == pytest.approx(4.2 * lambdas**1.2, rel=0.05)
    with pytest.raises(CotamError, match="a bit has no price"):
        fit_prices(rates, np.arange(4.0), lambdas)


def test_a_question_sees_the_image_and_itself_alone(checkout, tmp_path):
    """Several questions behind one image are answered as each would be alone."""
    from components.training.lessons import Answering, SceneLessons

    raw = read_yaml(checkout.root / "params.yaml")
    stage = MethodStage(StepInputs(Params(raw), tmp_path, tmp_path, CODEC, MLLM, paths=checkout, log=Recorder()))
    mllm = load_mllm(checkout.root / "pretrained/mllm/micro-llava")
    lessons = SceneLessons(stage.store, stage.scenes, mllm, 7, 3)
    batch = lessons.batch(0, np.array([4]))
    answering = Answering(mllm)
    states = mllm.tower.hidden_states(batch["patches"], {mllm.tower.feature_layer})[mllm.tower.feature_layer]
    with torch.no_grad():
        together = float(answering(states, batch)["answer"])
        total, count = 0.0, 0
        for owner in (1, 2, 3):
            mine = batch["owners"][0] == owner
            ids = torch.cat([answering.head_H, batch["tokens"][0, mine]])[None]
            embeddings = mllm.model.get_input_embeddings()(ids)
            embeddings[ids == mllm.model.config.image_token_id] = mllm.family.project(states)[0]
            logits = mllm.model(inputs_embeds=embeddings).logits[0, len(answering.head_H) :]
            targets = batch["targets"][0, mine]
            total += float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum", ignore_index=-100))
            count += int((targets != -100).sum())
    assert together == pytest.approx(total / count, rel=1e-4)
