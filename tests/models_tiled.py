"""Tiny random MLLMs of high resolution in the formats of the Hub: LLaVA-OneVision and InternVL.

As `models.py`: answers are nonsense, but shapes, files and code paths are those of the real models. Both see 48-pixel
tiles in patches of 8; an OneVision on up to 2 x 2 (and 1 x 3) of them, an InternVL on up to 4.
"""

from pathlib import Path

from tests.models import WORDS

SIDE, PATCH, WIDTH = 48, 8, 32
GRID = SIDE // PATCH
PINPOINTS = [[48, 48], [48, 96], [96, 48], [96, 96], [48, 144], [144, 48]]

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ IMAGE + '\n' }}"
    "{% elif part['type'] == 'video' %}{{ VIDEO + '\n' }}"
    "{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def _tokenizer(special: list[str], named: dict[str, str]):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [*WORDS.split(), "user", "assistant", "Frame", *(f"Frame{number}" for number in range(1, 10))]
    vocabulary = {token: index for index, token in enumerate(special + list(dict.fromkeys(words)))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<|im_end|>",
        unk_token="<unk>",
        extra_special_tokens=named,
        padding_side="left",
    )


def _text(kind, tokenizer):
    return kind(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=len(tokenizer),
        max_position_embeddings=2048,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        # Answers should differ between images and prompts.
        initializer_range=0.3,
    )


def _write(model, processor, folder: Path | str) -> Path:
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return Path(folder)


def _seeing(tower):
    """A tower whose random weights are large enough that images differ in it."""
    import torch

    with torch.no_grad():
        for name, parameter in tower.named_parameters():
            if parameter.dim() > 1 or "lambda" in name:
                parameter.mul_(4)
    return tower


def tiny_onevision_folder(folder: Path | str, seed: int = 0) -> Path:
    """Write a random `LlavaOnevisionForConditionalGeneration` with its processor to `folder`; return the folder."""
    import torch
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        LlavaOnevisionImageProcessor,
        LlavaOnevisionProcessor,
        LlavaOnevisionVideoProcessor,
        Qwen2Config,
        SiglipVisionConfig,
    )

    tokenizer = _tokenizer(["<pad>", "<unk>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"], {})
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>", "<video>", "<|im_start|>"]})
    vision = SiglipVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=PATCH,
        vision_use_head=False,
    )
    config = LlavaOnevisionConfig(
        vision_config=vision.to_dict(),
        text_config=_text(Qwen2Config, tokenizer).to_dict(),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=PINPOINTS,
        # So that the largest canvas is shrunk by the model: 4 tiles are more than 3.
        vision_aspect_ratio="anyres_max_3",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlavaOnevisionForConditionalGeneration(config)
        _seeing(model.model.vision_tower)
    size = {"height": SIDE, "width": SIDE}
    normal = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    processor = LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=PINPOINTS, **normal),
        tokenizer=tokenizer,
        video_processor=LlavaOnevisionVideoProcessor(size=size, **normal),
        num_image_tokens=GRID * GRID,
        vision_feature_select_strategy="full",
        chat_template=CHATML.replace("IMAGE", "'<image>'").replace("VIDEO", "'<video>'"),
        vision_aspect_ratio="anyres_max_3",
    )
    return _write(model, processor, folder)


def tiny_internvl_folder(folder: Path | str, seed: int = 0) -> Path:
    """Write a random `InternVLForConditionalGeneration` with its processor to `folder`; return the folder."""
    import torch
    from transformers import (
        GotOcr2ImageProcessor,
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLProcessor,
        InternVLVideoProcessor,
        InternVLVisionConfig,
        LlamaConfig,
    )

    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    special = ["<pad>", "<unk>", "<|im_start|>", "<|im_end|>", *named.values()]
    tokenizer = _tokenizer(special, named)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    vision = InternVLVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=[SIDE, SIDE],
        patch_size=[PATCH, PATCH],
        attention_bias=True,
        layer_scale_init_value=1.0,
    )
    config = InternVLConfig(
        vision_config=vision.to_dict(),
        text_config=_text(LlamaConfig, tokenizer).to_dict(),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=GRID * GRID // 4,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = InternVLForConditionalGeneration(config)
        torch.nn.init.normal_(model.model.vision_tower.embeddings.position_embeddings, std=0.1)
        torch.nn.init.normal_(model.model.vision_tower.embeddings.cls_token, std=0.1)
        _seeing(model.model.vision_tower)
    size = {"height": SIDE, "width": SIDE}
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size=size, crop_to_patches=True, min_patches=1, max_patches=4),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(size=size),
        image_seq_length=GRID * GRID // 4,
        chat_template=CHATML.replace("IMAGE", "'<IMG_CONTEXT>'").replace("VIDEO", "'<video>'"),
    )
    return _write(model, processor, folder)
