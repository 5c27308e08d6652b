"""The MLLM answers as transformers' own `generate` does, sees each view once, and listens to residuals."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from components.adapter import AdapterConfig, LatentAdapter
from components.errors import CotamError
from components.mllm import View, load_mllm
from components.mllm.llava import Llava
from components.vision import Geometry
from tests.models import tiny_clip_folder, tiny_llava_folder

PROMPTS = [
    "How many circles are there?",
    "Is there a red circle in the picture? Answer yes or no.",
    "What colour is the large square?\nA. red\nB. blue\nC. green\nAnswer with the option's letter.",
    "What word is shown?",
    "number?",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_llava_folder(tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="module")
def mllm(folder):
    return load_mllm(folder)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(2)
    flat = rng.integers(0, 256, (4, 1, 1, 3)) + rng.integers(-40, 40, (4, 150, 128, 3))
    return [Image.fromarray(image.clip(0, 255).astype(np.uint8)) for image in flat]


@pytest.fixture(scope="module")
def expected(folder, images):
    """Answers of transformers' generate, one question at a time: {(image, prompt): answer}."""
    model = LlavaForConditionalGeneration.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    answers = {}
    for i, image in enumerate(images):
        for prompt in PROMPTS:
            content = [{"type": "image"}, {"type": "text", "text": prompt}]
            text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
            inputs = processor(images=image, text=text, return_tensors="pt")
            output = model.generate(**inputs, max_new_tokens=8, do_sample=False)
            answer = processor.decode(output[0, inputs.input_ids.shape[1] :], skip_special_tokens=True)
            answers[i, prompt] = answer.strip()
    return answers


def test_answers_are_those_of_generate(mllm, images, expected):
    views = mllm.views(images)
    pairs = [(i, prompt) for prompt in PROMPTS for i in range(len(images))]
    answers = mllm.answer([views[i] for i, _ in pairs], [prompt for _, prompt in pairs])
    assert dict(zip(pairs, answers, strict=True)) == expected
    # A test of nothing, were all answers the same whatever is seen or asked.
    assert len(set(answers)) > len(pairs) / 2


@pytest.mark.parametrize("batch_size", [1, 3])
def test_answers_do_not_depend_on_the_batch(folder, images, expected, batch_size):
    mllm = load_mllm(folder, batch_size)
    pairs = list(expected)
    views = mllm.views(images)
    assert mllm.answer([views[i] for i, _ in pairs], [prompt for _, prompt in pairs]) == list(expected.values())


def test_an_answer_ends_at_the_end_token_or_the_limit(folder, images, expected):
    mllm = load_mllm(folder)
    views = mllm.views(images)
    first = mllm.answer(views, [PROMPTS[0]] * 4, max_new_tokens=1)
    assert all(expected[i, PROMPTS[0]].startswith(word) for i, word in enumerate(first))
    words = expected[0, PROMPTS[0]].split()
    end = words[1]
    mllm.end_tokens = [mllm.processor.tokenizer.convert_tokens_to_ids(end)]
    assert mllm.answer(views[:1], PROMPTS[:1]) == [" ".join(words[: words.index(end)])]


def test_a_residual_of_zero_changes_no_bit(folder, mllm, images, expected):
    views = mllm.views(images)
    zero = [View(view.pixels_3HW, torch.zeros(64, 32)) for view in views]
    model = LlavaForConditionalGeneration.from_pretrained(folder)
    with torch.no_grad():
        plain = model.get_image_features(torch.stack([view.pixels_3HW for view in views])).pooler_output
        assert torch.equal(mllm.family.embed(zero), torch.stack(plain))
    assert mllm.answer(zero, [PROMPTS[0]] * 4) == [expected[i, PROMPTS[0]] for i in range(4)]


def test_a_residual_acts_where_the_patch_embeddings_are(mllm, images):
    """The difference of two images' patch embeddings, as a residual, turns one image into the other."""
    one, other = mllm.views(images[:2])
    patches_BND = mllm.tower.patch_embed(torch.stack([one.pixels_3HW, other.pixels_3HW]))
    disguised = View(one.pixels_3HW, patches_BND[1] - patches_BND[0])
    assert mllm.answer([disguised] * 5, PROMPTS) == mllm.answer([other] * 5, PROMPTS)
    assert mllm.answer([disguised] * 5, PROMPTS) != mllm.answer([one] * 5, PROMPTS)


def test_a_view_is_seen_once_and_mixes_with_others(mllm, images, monkeypatch):
    views = mllm.views(images)
    seen = []
    embed = mllm.family.embed
    monkeypatch.setattr(mllm.family, "embed", lambda views: seen.extend(views) or embed(views))
    mllm.answer([views[i % 3] for i in range(12)], [PROMPTS[i % 5] for i in range(12)])
    assert seen == views[:3]


def test_an_answer_ends_with_the_context(folder, images):
    short = load_mllm(folder)
    asked = len(short.prompts.processor.tokenizer(short.prompt_text(PROMPTS[0])).input_ids) + 63  # and 64 of the image
    views = short.views(images)
    whole = short.answer(views[:2], [PROMPTS[0], PROMPTS[4]])
    [two] = short.answer(views[:1], PROMPTS[:1], max_new_tokens=2)
    short.model.config.get_text_config().max_position_embeddings = asked + 2
    cut = short.answer(views[:2], [PROMPTS[0], PROMPTS[4]])
    assert cut[0] == two != whole[0]
    assert whole[1].startswith(cut[1]) and len(cut[1].split()) > 2  # its prompt is shorter
    short.model.config.get_text_config().max_position_embeddings = asked
    with pytest.raises(CotamError, match=rf"A question of {asked} tokens, .* no room for an answer in the {asked}"):
        short.answer(views[:1], PROMPTS[:1])


def test_several_images_are_answered_as_by_generate(folder, mllm, images):
    model, processor = LlavaForConditionalGeneration.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    content = [*[{"type": "image"}] * 3, {"type": "text", "text": PROMPTS[0]}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(images=images[:3], text=text, return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    expected = processor.decode(output[0, inputs.input_ids.shape[1] :], skip_special_tokens=True).strip()
    (seen,) = mllm.several_views([images[:3]])
    assert mllm.answer([seen], PROMPTS[:1]) == [expected]


@dataclass
class _Decoded:
    image: np.ndarray
    latent: torch.Tensor
    level_map: np.ndarray
    codec: str | None = None


def _adapter(channels=6, width=32):
    adapter = LatentAdapter(AdapterConfig(latent_channels=channels, feature_dim=width, grid=(8, 8), width=16))
    torch.nn.init.normal_(adapter.out_projection.weight, generator=torch.Generator().manual_seed(3))
    return adapter.eval()


def test_decoded_views_carry_the_adapters_residual(mllm):
    rng = np.random.default_rng(4)
    decoded = [
        _Decoded(
            rng.integers(0, 256, (height, 128, 3), dtype=np.uint8),
            torch.randn(6, rows, 8),
            rng.integers(0, 10, (rows, 8)),
        )
        for height, rows in [(128, 8), (192, 12), (128, 8)]
    ]
    adapter = _adapter()
    views = mllm.decoded_views(decoded, adapter)
    for view, item in zip(views, decoded, strict=True):
        assert torch.equal(view.pixels_3HW, mllm.geometry.pixels([item.image])[0])
    for index in (0, 2):
        quality_1HW = torch.from_numpy(decoded[index].level_map)[None]
        with torch.no_grad():
            alone_1ND = adapter(decoded[index].latent[None], quality_1HW)
        torch.testing.assert_close(views[index].residual_ND, alone_1ND[0])
    assert len(mllm.answer(views, PROMPTS[:3])) == 3
    with pytest.raises(CotamError, match="trained on this codec"):
        mllm.decoded_views(decoded, _adapter(channels=7))
    with pytest.raises(CotamError, match="trained on this MLLM"):
        mllm.decoded_views(decoded, _adapter(width=48))


def test_full_size_llava_shapes():
    """LLaVA-1.5-7B without its weights: the tower is found, and 576 tokens of width 4096 come out."""
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=24,
            num_attention_heads=16,
            image_size=336,
            patch_size=14,
        ).to_dict(),
        text_config=LlamaConfig(vocab_size=32064).to_dict(),
    )
    geometry = Geometry(mean=(0.5,) * 3, std=(0.5,) * 3, shortest_edge=336, crop=(336, 336))
    with torch.device("meta"):
        family = Llava(LlavaForConditionalGeneration(config), geometry)
        view = View(torch.empty(3, 336, 336), torch.empty(576, 1024))
        embeddings = family.embed([view, View(view.pixels_3HW)])
    assert family.tower.grid == (24, 24)
    assert family.tower.model is family.model.model.vision_tower
    assert family.tower.model.embeddings.patch_embedding.weight.shape == (1024, 3, 14, 14)
    assert embeddings.shape == (2, 576, 4096)


def test_errors_say_what_is_wrong(tmp_path, mllm, images):
    clip = tiny_clip_folder(tmp_path / "clip")
    with pytest.raises(CotamError, match="'clip' model; an MLLM must be one of llava"):
        load_mllm(clip)
    broken = tiny_llava_folder(tmp_path / "llava")
    (broken / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(CotamError, match="damaged"):
        load_mllm(broken)
    for file in broken.glob("*processor*"):
        file.unlink()
    with pytest.raises(CotamError, match="no processor"):
        load_mllm(broken)
    with pytest.raises(CotamError, match="<image>"):
        mllm.answer(mllm.views(images[:1]), ["What is <image>?"])
