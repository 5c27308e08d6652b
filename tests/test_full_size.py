"""The paper's MLLMs at full size, before anything is fetched: parameters, shapes, processors, a pass at full width."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoProcessor

from benchmarks import mllm_memory
from components import config
from components.mllm import FAMILIES, Mllm, load_mllm
from components.mllm.full_size import FULL_SIZE, MODEL_CLASSES, internvl2_8b, tokens
from components.mllm.internvl2_processor import published_processor
from components.mllm.internvl2_weights import published_config, renamed
from components.mllm.prompts import Prompts
from components.mllm.visual import Kind, Visual, as_visual
from components.paths import ROOT
from tests.internvl2 import Sizes, published_folder, published_shapes
from tests.models import tiny_llava_folder
from tests.models_tiled import tiny_internvl_folder, tiny_onevision_folder
from tests.official import llava_files, onevision_files

QUESTION = "Is there a red circle in the picture?"
EXACT = {"llava-1_5-7b": 7_063_427_072}  # the one whose index file tells bytes: 14,126,854,144 in float16


@pytest.fixture(scope="module")
def families():
    return {name: full.on_meta() for name, full in FULL_SIZE.items()}


@pytest.mark.parametrize("name", FULL_SIZE)
def test_parameters_are_as_many_as_were_published(families, name):
    count = sum(parameter.numel() for parameter in families[name].model.parameters())
    published = FULL_SIZE[name].published
    digits = len(published.removesuffix("B").split(".")[1])
    assert f"{count / 1e9:.{digits}f}B" == published
    assert count == EXACT.get(name, count)


@pytest.mark.parametrize(
    ("name", "grid", "width", "layer", "language", "image", "photo", "video"),
    [
        ("llava-1_5-7b", (24, 24), 1024, 23, 4096, 576, 576, None),
        ("llava-1_5-13b", (24, 24), 1024, 23, 5120, 576, 576, None),
        # The whole, 27 x 27 patches, and 27 rows of them with a newline; 54 x 72 ... at 768 x 1024; 14 x 14 a frame.
        ("llava-onevision-7b", (27, 27), 1152, 26, 3584, 729 + 27 * 28, None, 4 * 196 + 1),
        # 16 x 16 tokens a tile: one tile, or 3 x 4 and the whole.
        ("internvl2-8b", (32, 32), 1024, 24, 4096, 256, 13 * 256, 4 * 256),
    ],
)
def test_shapes(families, name, grid, width, layer, language, image, photo, video):
    family = families[name]
    assert (family.tower.grid, family.tower.width, family.tower.feature_layer) == (grid, width, layer)
    assert family.model.get_input_embeddings().weight.shape[1] == language
    assert tokens(family, Kind.IMAGE, (336, 336)) == image
    if photo:
        assert tokens(family, Kind.IMAGE, (768, 1024)) == photo
    if video:
        assert tokens(family, Kind.VIDEO, (360, 640), 4) == video


PROCESSORS = {"llava-1_5-7b": llava_files, "llava-onevision-7b": onevision_files}


@pytest.mark.parametrize("name", PROCESSORS)
def test_prompts_of_official_processors_have_room_for_every_token(families, name, tmp_path):
    processor = AutoProcessor.from_pretrained(PROCESSORS[name](tmp_path))
    family = type(families[name]).open(families[name].model, processor)
    prompts = Prompts(processor, processor.image_token_id, getattr(processor, "video_token_id", None))
    for size in [(336, 336), (480, 640), (1500, 700), (200, 3000)]:
        image = np.zeros((*size, 3), np.uint8)
        inputs = processor(images=[image], text=[prompts.text(QUESTION)], return_tensors="pt")
        visual = Visual(Kind.IMAGE, (), (size,))
        placeholder = family.placeholder(processor, visual, tokens(family, Kind.IMAGE, size))
        head, tail = prompts.ids(QUESTION, Kind.IMAGE, (placeholder,))
        assert [*head, *tail] == inputs.input_ids[0].tolist(), size


def test_a_published_internvl2_of_full_size_finds_its_places(tmp_path):
    """The names and shapes of InternVL2-8B's files become exactly those of transformers' model."""
    folder = published_folder(tmp_path)
    told = json.loads((folder / "config.json").read_text())
    told["llm_config"] |= {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "max_position_embeddings": 32768,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "vocab_size": 92553,
    }
    told["vision_config"] |= {
        "hidden_size": 1024,
        "image_size": 448,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
    }
    told |= {"force_image_size": 448, "max_dynamic_patch": 12}
    (folder / "config.json").write_text(json.dumps(told))
    found = published_config(folder, 92546)
    assert (found.image_seq_length, published_processor(folder).image_seq_length) == (256, 256)
    sizes = Sizes(92553, 1024, 4096, 24, 32 * 32, 4096, 14336, 32, 32, 8)
    converted = {}
    for name, shape in published_shapes(sizes).items():
        pieces = renamed(name, torch.empty(shape, device="meta"), found.text_config)
        converted |= {key: tuple(piece.shape) for key, piece in pieces.items()}
    for config_of_model in (found, internvl2_8b()):
        with torch.device("meta"):
            model = MODEL_CLASSES[type(found)](config_of_model)
        assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == converted


def _shallow(name, processor):
    """The MLLM at full widths with one layer for language and two for vision, and few words."""
    of_model = FULL_SIZE[name].config()
    of_model.text_config.num_hidden_layers = 1
    of_model.text_config.vocab_size = len(processor.tokenizer)
    of_model.vision_config.num_hidden_layers = 2
    of_model.image_token_id = processor.image_token_id
    if hasattr(of_model, "video_token_id"):
        of_model.video_token_id = processor.video_token_id
    with torch.device("meta"):
        model = MODEL_CLASSES[type(of_model)](of_model)
    model = model.to_empty(device="cpu")
    # Drawn once and repeated: a quarter of a billion draws take long. What was computed, not read, is computed again.
    piece = 0.02 * torch.randn(65521, generator=torch.Generator().manual_seed(3))
    for parameter in model.parameters():
        parameter.data.copy_(piece.repeat(-(-parameter.numel() // len(piece)))[: parameter.numel()].view_as(parameter))
    for module in model.modules():
        if hasattr(module, "original_inv_freq"):
            module.__init__(module.config)
        if hasattr(module, "position_ids"):
            module.position_ids = torch.arange(module.num_positions)[None]
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    return Mllm(FAMILIES[of_model.model_type].open(model, processor), processor)


def _passes(mllm, size):
    image = np.random.default_rng(3).integers(0, 256, (*size, 3), dtype=np.uint8)
    seen = mllm.views([image])
    (one,) = mllm.embed(seen)
    assert torch.isfinite(one[0]).all()
    assert isinstance(mllm.answer(seen, [QUESTION], max_new_tokens=2)[0], str)
    return len(one[0]), len(as_visual(seen[0]).views)


def test_one_pass_at_full_width_llava(tmp_path):
    mllm = _shallow("llava-1_5-7b", AutoProcessor.from_pretrained(llava_files(tmp_path)))
    assert _passes(mllm, (300, 400)) == (576, 1)


@pytest.mark.soak
def test_one_pass_at_full_width_internvl2(tmp_path):
    folder = published_folder(tmp_path)
    told = json.loads((folder / "config.json").read_text()) | {"force_image_size": 448}
    (folder / "config.json").write_text(json.dumps(told))
    mllm = _shallow("internvl2-8b", published_processor(folder))
    assert _passes(mllm, (448, 448)) == (256, 1)


@pytest.mark.soak
def test_one_pass_at_full_width_onevision(tmp_path):
    mllm = _shallow("llava-onevision-7b", AutoProcessor.from_pretrained(onevision_files(tmp_path)))
    assert _passes(mllm, (384, 384)) == (1485, 2)


@pytest.mark.parametrize("make", [tiny_llava_folder, tiny_onevision_folder, tiny_internvl_folder])
def test_sharded_weights_load_in_bfloat16_where_the_map_says(make, tmp_path):
    folder = make(tmp_path / "one")
    exact = load_mllm(folder)
    exact.model.to(torch.bfloat16).save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    exact.processor.save_pretrained(tmp_path / "shards")
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 2
    where = {"model.vision_tower": "cpu", "model.multi_modal_projector": "cpu", "model.language_model": "cpu"}
    where |= {"lm_head": "cpu"} | ({"model.image_newline": "cpu"} if make is tiny_onevision_folder else {})
    image = np.random.default_rng(3).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    expected = exact.embed(exact.views([image]))[0][0]
    for device_map in ("auto", where):
        mllm = load_mllm(tmp_path / "shards", dtype="bfloat16", device_map=device_map)
        assert {parameter.dtype for parameter in mllm.model.parameters()} == {torch.bfloat16}
        found = mllm.embed(mllm.views([image]))[0][0]
        assert found.dtype == torch.bfloat16
        assert (found - expected).norm() < 0.1 * expected.norm()
        assert mllm.answer(mllm.views([image]), [QUESTION])
    assert load_mllm(tmp_path / "shards", dtype="auto").model.dtype == torch.bfloat16
    assert load_mllm(tmp_path / "shards").model.dtype == torch.float32


def test_the_paper_profile_names_them():
    paper = config.load(ROOT / "profiles/paper.yaml")
    assert {name: model.weights for name, model in paper.mllm.items()} == {
        name: full.hub for name, full in FULL_SIZE.items()
    }
    assert set(paper.mllms) <= set(FULL_SIZE)


def test_the_paper_profile_names_tasks_of_lmms_eval():
    named = config.load(ROOT / "profiles/paper.yaml").evaluation.tasks
    tasks = Path(find_spec("lmms_eval").origin).parent / "tasks"
    for task in named:
        files = (tasks / task.split("_")[0]).rglob("*.yaml")
        assert any(re.search(rf'^task: "?{task}"?$', file.read_text(), re.MULTILINE) for file in files), task
    assert len(named) == 8


def test_the_memory_table_is_in_the_documents(families, capsys, monkeypatch):
    found = mllm_memory.measure(families)
    text = mllm_memory.PAGE.read_text(encoding="utf-8")
    assert mllm_memory.page(text, found) == text
    llava = found["llava-1_5-7b"]
    kept, working = 2 * 32 * 32 * 128, 2 * 4096 + 2 * 11008 + 96 * 128
    assert llava["bytes"]["bfloat16"]["336 x 336"] == 2 * (7_063_427_072 + 576 * (2 * kept + working))
    monkeypatch.setattr("sys.argv", ["mllm_memory", "--json"])
    monkeypatch.setattr(mllm_memory, "measure", lambda: found)
    assert mllm_memory.main() == 0
    assert json.loads(capsys.readouterr().out) == found
