"""The micro MLLMs as transformers' own classes, around a tower, with their processors; their language models untrained.

All are asked in LLaVA-1.5's words. Those of high resolution also know the words of the two further benchmarks, and
their own tokens for tiles and videos, behind the words that the micro LLaVA knows: so its weights fit.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPVisionModel,
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    InternVLVisionModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    LlavaProcessor,
    PreTrainedModel,
    Qwen2Config,
    SiglipVisionModel,
)

from components.evaluation import further
from components.evaluation.clips import FRAMES
from pipelines.pretrain.lessons import EXTRA_WORDS
from pipelines.pretrain.tiles import GRID
from pipelines.pretrain.train_clip import SIDE, image_processor
from pipelines.pretrain.words import BOS, EOS, PAD, word_tokenizer

PATCH = 16
INTERNVL_TOKENS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
MAX_TILES = 16
DETAILS = range(1, 5)
"""Of the scenes that they are made for: one of detail 4 is as many tiles as fit."""
PINPOINTS = [[SIDE * n, SIDE * n] for n in (1, 2, 3, 4)] + [[SIDE, 2 * SIDE], [2 * SIDE, SIDE]]
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}USER: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE\n{% elif part['type'] == 'video' %}<video>\n"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% else %}ASSISTANT: {% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)


def micro_llava(clip: Path, layers: int = 6) -> tuple[PreTrainedModel, Any]:
    """A LLaVA on the tower of a CLIP folder, with a Llama of so many layers, and its processor."""
    tower = CLIPVisionModel.from_pretrained(clip, dtype=torch.float32)
    tokenizer = word_tokenizer(EXTRA_WORDS, add_eos=False)
    config = LlavaConfig(
        vision_config=_vision(tower), text_config=_language(LlamaConfig, tokenizer, layers, 512),
        image_token_id=_id(tokenizer, "<image>"), image_seq_length=GRID**2, vision_feature_layer=-2,
        vision_feature_select_strategy="default", tie_word_embeddings=True,
    )  # fmt: skip
    processor = LlavaProcessor(
        image_processor=image_processor(),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE.replace("IMAGE", "<image>").replace("{% elif part['type'] == 'video' %}<video>\n", ""),
        num_additional_image_tokens=1,
    )
    return _around(tower, LlavaForConditionalGeneration, config), processor


def micro_internvl(folder: Path, layers: int = 6) -> tuple[PreTrainedModel, Any]:
    """An InternVL on an InternViT's folder: tiles, pixel shuffle, a Llama; and its processor."""
    tower = InternVLVisionModel.from_pretrained(folder, dtype=torch.float32)
    frames = (f"Frame{number}:" for number in range(1, FRAMES + 1))
    tokenizer = _tokenizer(tuple(INTERNVL_TOKENS.values()), frames, INTERNVL_TOKENS)
    config = InternVLConfig(
        vision_config=_vision(tower), text_config=_language(LlamaConfig, tokenizer, layers, 2048),
        image_token_id=_id(tokenizer, "<IMG_CONTEXT>"), image_seq_length=GRID**2 // 4, tie_word_embeddings=True,
    )  # fmt: skip
    images = GotOcr2ImageProcessor(crop_to_patches=True, min_patches=1, max_patches=MAX_TILES, **_normal())
    processor = InternVLProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(**_normal()),
        image_seq_length=GRID**2 // 4,
        chat_template=TEMPLATE.replace("IMAGE", "<IMG_CONTEXT>"),
    )
    return _around(tower, InternVLForConditionalGeneration, config), processor


def micro_onevision(folder: Path, layers: int = 6) -> tuple[PreTrainedModel, Any]:
    """A LLaVA-OneVision on a SigLIP's folder: a whole, tiles, a Qwen2; and its processor."""
    tower = SiglipVisionModel.from_pretrained(folder, dtype=torch.float32)
    tokenizer = _tokenizer(("<video>",), (), {})
    config = LlavaOnevisionConfig(
        vision_config=_vision(tower), text_config=_language(Qwen2Config, tokenizer, layers, 2048),
        image_token_index=_id(tokenizer, "<image>"), video_token_index=_id(tokenizer, "<video>"),
        image_grid_pinpoints=PINPOINTS, vision_aspect_ratio="anyres_max_9", tie_word_embeddings=True,
    )  # fmt: skip
    processor = LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(image_grid_pinpoints=PINPOINTS, **_normal()),
        tokenizer=tokenizer,
        video_processor=LlavaOnevisionVideoProcessor(**_normal()),
        num_image_tokens=GRID**2,
        vision_feature_select_strategy="full",
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
        vision_aspect_ratio="anyres_max_9",
    )
    return _around(tower, LlavaOnevisionForConditionalGeneration, config), processor


MODELS = {"llava": micro_llava, "internvl": micro_internvl, "onevision": micro_onevision}


def _vision(tower: PreTrainedModel) -> dict[str, Any]:
    """A tower's configuration, without the folder that it came from."""
    return {key: value for key, value in tower.config.to_dict().items() if key != "_name_or_path"}


def _language(kind: type, tokenizer: Any, layers: int, positions: int) -> dict[str, Any]:
    sizes = {"hidden_size": 160, "intermediate_size": 320, "num_attention_heads": 5, "num_key_value_heads": 5}
    return kind(
        vocab_size=len(tokenizer), num_hidden_layers=layers, max_position_embeddings=positions, **sizes,
        tie_word_embeddings=True, pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS,
    ).to_dict()  # fmt: skip


def _tokenizer(special: tuple[str, ...], words: Any, named: dict[str, str]) -> Any:
    """Behind the micro LLaVA's words: special tokens, then words of videos and of several pictures."""
    return word_tokenizer(EXTRA_WORDS, add_eos=False, later=(*special, *words, *further.vocabulary()), named=named)


def _id(tokenizer: Any, token: str) -> int:
    return tokenizer.convert_tokens_to_ids(token)


def _normal() -> dict[str, Any]:
    """A view's size, and colours as the CLIP was shown them."""
    clip = image_processor()
    size = {"height": SIDE, "width": SIDE}
    return {"size": size, "image_mean": clip.image_mean, "image_std": clip.image_std}


def _around(tower: PreTrainedModel, kind: type[PreTrainedModel], config: Any) -> PreTrainedModel:
    model = kind._from_config(config, attn_implementation="eager")
    missing, unexpected = model.model.vision_tower.load_state_dict(tower.state_dict(), strict=False)
    if missing or unexpected:
        raise RuntimeError(f"the tower does not fit: {missing or unexpected}")
    generation = model.generation_config
    generation.pad_token_id, generation.bos_token_id, generation.eos_token_id = PAD, BOS, EOS
    return model
