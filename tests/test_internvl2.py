"""InternVL2 as it was published: every weight finds its place, and what is computed is what the names mean."""

import json

import numpy as np
import pytest
import sentencepiece
import torch
from safetensors.torch import load_file, save_file

from components.errors import CotamError
from components.mllm import load_mllm
from components.mllm.internvl2_processor import published_processor, published_tokenizer
from components.mllm.internvl2_weights import published_config, published_weights
from components.mllm.visual import as_visual
from components.vision import load_tower
from tests.internvl2 import HEADS, KEY_HEADS, LAYERS, WIDTH, internlm2_logits, published_folder, published_tensors


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return published_folder(tmp_path_factory.mktemp("internvl2"))


@pytest.fixture(scope="module")
def mllm(folder):
    return load_mllm(folder)


def _published_again(state: dict) -> dict:
    """transformers' names and matrices back into the published ones, written from the layouts alone."""
    names = {
        "model.language_model.embed_tokens": "language_model.model.tok_embeddings",
        "lm_head": "language_model.output",
        "model.language_model": "language_model.model",
        "model.multi_modal_projector.layer_norm": "mlp1.0",
        "model.multi_modal_projector.linear_1": "mlp1.1",
        "model.multi_modal_projector.linear_2": "mlp1.3",
        "model.vision_tower.encoder.layer.": "vision_model.encoder.layers.",
        "model.vision_tower.embeddings.cls_token": "vision_model.embeddings.class_embedding",
        "model.vision_tower.embeddings.patch_embeddings.projection": "vision_model.embeddings.patch_embedding",
        "model.vision_tower.embeddings.position_embeddings": "vision_model.embeddings.position_embedding",
        "self_attn.o_proj": "attention.wo",
        "mlp.gate_proj": "feed_forward.w1",
        "mlp.down_proj": "feed_forward.w2",
        "mlp.up_proj": "feed_forward.w3",
        "post_attention_layernorm": "ffn_norm",
        "input_layernorm": "attention_norm",
        "attention.projection_layer": "attn.proj",
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "lambda_": "ls",
    }
    back, head = {}, WIDTH // HEADS
    for name, tensor in state.items():
        if any(f".{part}_proj." in name for part in "kv"):
            continue
        if ".q_proj." in name:
            q, k, v = (state[name.replace(".q_proj.", f".{part}_proj.")] for part in "qkv")
            if "vision" in name:
                name, tensor = name.replace("attention.q_proj", "attn.qkv"), torch.cat([q, k, v])
            else:
                rows = []
                for group in range(KEY_HEADS):
                    each = HEADS // KEY_HEADS * head
                    place = slice(group * head, (group + 1) * head)
                    rows += [q[group * each : (group + 1) * each], k[place], v[place]]
                name, tensor = name.replace("self_attn.q_proj", "attention.wqkv"), torch.cat(rows)
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        back[name] = tensor
    return back


def test_every_weight_goes_there_and_back(folder, mllm):
    expected, found = published_tensors(folder), _published_again(mllm.model.state_dict())
    assert sorted(found) == sorted(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    converted = published_weights(folder, published_config(folder, mllm.processor.image_token_id))
    assert sorted(converted) == sorted(mllm.model.state_dict())


def test_the_language_model_is_internlm2(folder, mllm):
    embeddings_TE = torch.randn(11, WIDTH, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = mllm.model(inputs_embeds=embeddings_TE[None], input_ids=None).logits[0]
    expected = internlm2_logits(published_tensors(folder), embeddings_TE, torch.arange(11))
    torch.testing.assert_close(logits.double(), expected, atol=1e-4, rtol=1e-4)
    assert (logits.argmax(-1) == expected.argmax(-1)).all()
    assert len(logits.argmax(-1).unique()) > 3


def test_a_question_about_an_image(folder, mllm):
    rng = np.random.default_rng(6)
    images = [rng.integers(0, 256, size, dtype=np.uint8) for size in [(56, 56, 3), (120, 60, 3)]]
    seen = mllm.views(images)
    assert [len(as_visual(one).views) for one in seen] == [1, 3]
    answers = mllm.answer([*seen, seen[0]], ["Is there a red star?"] * 2 + ["How many circles?"])
    assert len(answers) == 3
    tokens = [len(part) for one in mllm.embed(seen) for part in one]
    assert tokens == [4, 12]  # 4 x 4 patches of a tile become 2 x 2 tokens
    (video,) = mllm.video_views([images[:1] * 3])
    assert mllm.answer([video], ["Is there a star?"])
    text = mllm.prompt_text("Is it?")
    assert text.endswith("<|im_end|><|im_start|>user\n<IMG_CONTEXT>\nIs it?<|im_end|><|im_start|>assistant\n")
    assert text.startswith("<|im_start|>system\n")


def test_the_tower_is_found_alone(folder, mllm):
    alone, pixels = load_tower(folder), torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(2))
    assert alone.feature_layer == mllm.tower.feature_layer == LAYERS
    patches = [tower.patch_embed(pixels) for tower in (alone, mllm.tower)]
    features = [tower.forward_from_patches(patches[0]).consumed_BND for tower in (alone, mllm.tower)]
    assert torch.equal(*patches)
    assert torch.equal(*features)


def test_text_becomes_the_numbers_that_sentencepiece_gives(folder):
    tokenizer = published_tokenizer(folder)
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    for text in ["Is there a red circle?", " two  blanks\nand a line", "Zürich, 东京 🙂", "a", "[x] 12.5%"]:
        assert tokenizer(text, add_special_tokens=False).input_ids == model.encode(text), text
        assert tokenizer(text).input_ids == [1, *model.encode(text)]
        assert tokenizer.decode(model.encode(text)) == text
    told = json.loads((folder / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    for number, entry in told.items():
        assert tokenizer.convert_tokens_to_ids(entry["content"]) == int(number)
        mixed = tokenizer(f"red{entry['content']} star", add_special_tokens=False).input_ids
        assert mixed == [*model.encode("red"), int(number), *model.encode(" star")]


def test_processor_and_tiles_are_as_the_files_say(folder):
    processor = published_processor(folder)
    assert (processor.image_processor.min_patches, processor.image_processor.max_patches) == (1, 4)
    assert processor.image_seq_length == 4
    image = np.zeros((112, 56, 3), np.uint8)
    inputs = processor(images=[image], text=["<IMG_CONTEXT>\nred"], return_tensors="pt")
    assert inputs.pixel_values.shape == (3, 3, 56, 56)
    expected = torch.tensor([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])
    torch.testing.assert_close(inputs.pixel_values.amax((0, 2, 3)), expected)
    assert (inputs.input_ids == processor.image_token_id).sum() == 12


def test_weights_come_in_the_type_asked_for(folder):
    for asked in ("auto", torch.bfloat16):
        mllm = load_mllm(folder, dtype=asked, device_map={"": "cpu"})
        assert {parameter.dtype for parameter in mllm.model.parameters()} == {torch.bfloat16}
        assert mllm.answer(mllm.views([np.zeros((60, 60, 3), np.uint8)]), ["Is there a star?"])


def _changed(folder, tmp_path, change):
    import shutil

    copy = shutil.copytree(folder, tmp_path / "copy")
    change(copy)
    return copy


def _config(**changes):
    def change(copy):
        told = json.loads((copy / "config.json").read_text())
        told["llm_config"] |= changes.pop("llm_config", {})
        (copy / "config.json").write_text(json.dumps(told | changes))

    return change


def _edited(file, *keys, **given):
    """A file without the value at these keys, or with another `value`."""

    def change(copy):
        told = json.loads((copy / file).read_text())
        section = told
        for key in keys[:-1]:
            section = section[key]
        del section[keys[-1]]
        if given:
            section[keys[-1]] = given["value"]
        (copy / file).write_text(json.dumps(told))

    return change


def _without_a_layer(copy):
    for file in copy.glob("*.safetensors"):
        tensors = load_file(file)
        tensors.pop("language_model.model.layers.2.attention.wo.weight", None)
        save_file(tensors, file, {"format": "pt"})


def _no_files(pattern):
    return lambda copy: [file.unlink() for file in copy.glob(pattern)]


def _other_tokenizer(copy):
    """One that folds blanks before it cuts, as InternLM2's does not."""
    (copy / "lines.txt").write_text("How many circles are there?\n" * 20)
    sentencepiece.SentencePieceTrainer.train(
        input=str(copy / "lines.txt"),
        model_prefix=str(copy / "tokenizer"),
        model_type="bpe",
        vocab_size=300,
        byte_fallback=True,
        minloglevel=2,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_config(llm_config={"architectures": ["Qwen2ForCausalLM"]}), "Qwen2ForCausalLM for language; only InternLM2"),
        (_config(ps_version="v1"), "shuffles pixels as v1"),
        (_without_a_layer, "has no weights for model.language_model.layers.2.self_attn.o_proj.weight"),
        (_no_files("*.safetensors"), "has no weights: its safetensors files are missing"),
        (_no_files("tokenizer.model"), r"tokenizer\.model does not exist"),
        (_other_tokenizer, "cuts text in a way that is not known"),
        (lambda copy: (copy / "tokenizer.model").write_bytes(b"x"), "is no sentencepiece model"),
        (_edited("config.json", "min_dynamic_patch"), r"config\.json does not say its min_dynamic_patch; fetch it"),
        (_edited("config.json", "vision_config"), r"config\.json does not say its vision_config; fetch it again"),
        (_edited("config.json", "vision_config", value=None), r"config\.json is not as transformers [\d.]+ reads it"),
        (_edited("config.json", "vision_config", "hidden_size", value="x"), r"is not as .* reads it \(.*hidden_size"),
        (_edited("config.json", "llm_config", "hidden_size"), r"config\.json does not say its hidden_size; fetch"),
        (_edited("config.json", "llm_config", "vocab_size", value="x"), r"is not as .* reads it \(.*vocab_size"),
        (_edited("config.json", "llm_config", "vocab_size", value=-3), r"cannot build what .*config\.json describes"),
        (_edited("preprocessor_config.json", "image_mean"), r"preprocessor_config\.json does not say its image_mean"),
        (_edited("preprocessor_config.json", "image_std", value="x"), r"preprocessor_config\.json is not as .* reads"),
        (_edited("tokenizer_config.json", "added_tokens_decoder", value=[1]), r"tokenizer_config\.json is not as"),
        (_edited("tokenizer_config.json", "added_tokens_decoder", "0", "content"), "does not say its content; fetch"),
    ],
)
def test_what_is_wrong_is_said(folder, tmp_path, change, message):
    with pytest.raises(CotamError, match=message):
        load_mllm(_changed(folder, tmp_path, change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_edited("config.json", "vision_config", "hidden_size", value="x"), r"is not as .* reads it \(.*hidden_size"),
        (_edited("config.json", "vision_config", "patch_size"), r"config\.json does not say its patch_size; fetch it"),
        (_edited("config.json", "select_layer", value="x"), "No tower can be built .*; fetch both again"),
        (_edited("preprocessor_config.json", "image_mean", value=None), "No tower can be built .*; fetch both again"),
    ],
)
def test_what_is_wrong_with_its_tower_alone_is_said(folder, tmp_path, change, message):
    with pytest.raises(CotamError, match=message):
        load_tower(_changed(folder, tmp_path, change))
