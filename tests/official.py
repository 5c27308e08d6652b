"""Processors in the files that the Hub holds of the full-size MLLMs; only the vocabulary is small."""

import json
from pathlib import Path

CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
PINPOINTS = [[384 * rows, 384 * columns] for rows in range(1, 7) for columns in range(1, 7)]

LLAVA_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ content['text'] + ' '}}{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
ONEVISION_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + ' '}}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'video') %}{{ '<video>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ '\n' + content['text'] }}{% endfor %}{{'<|im_end|>'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def _write(folder: Path, files: dict[str, dict], special: list[str], eos: str) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from tests.models import WORDS

    words = [*special, *dict.fromkeys([*WORDS.split(), "user", "assistant", "USER", "ASSISTANT"])]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", eos_token=eos, padding_side="left"
    )
    fast.add_special_tokens({"additional_special_tokens": special})
    fast.save_pretrained(folder)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return folder


def llava_files(folder: Path) -> Path:
    """llava-hf/llava-1.5-7b-hf."""
    preprocessor = {
        "crop_size": {"height": 336, "width": 336},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": CLIP_MEAN,
        "image_processor_type": "CLIPImageProcessor",
        "image_std": CLIP_STD,
        "processor_class": "LlavaProcessor",
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
        "size": {"shortest_edge": 336},
    }
    processor = {
        "image_token": "<image>",
        "num_additional_image_tokens": 1,
        "patch_size": 14,
        "processor_class": "LlavaProcessor",
        "vision_feature_select_strategy": "default",
    }
    files = {
        "preprocessor_config.json": preprocessor,
        "processor_config.json": processor,
        "chat_template.json": {"chat_template": LLAVA_TEMPLATE},
    }
    return _write(folder, files, ["<unk>", "<s>", "</s>", "<image>", "<pad>"], "</s>")


def onevision_files(folder: Path) -> Path:
    """llava-hf/llava-onevision-qwen2-7b-ov-hf."""
    common = {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "processor_class": "LlavaOnevisionProcessor",
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
        "size": {"height": 384, "width": 384},
    }
    image = {
        **common,
        "do_pad": True,
        "image_grid_pinpoints": PINPOINTS,
        "image_processor_type": "LlavaOnevisionImageProcessor",
    }
    processor = {
        "image_token": "<image>",
        "num_image_tokens": 729,
        "processor_class": "LlavaOnevisionProcessor",
        "video_token": "<video>",
        "vision_feature_select_strategy": "full",
    }
    files = {
        "preprocessor_config.json": image,
        "video_preprocessor_config.json": {**common, "video_processor_type": "LlavaOnevisionVideoProcessor"},
        "processor_config.json": processor,
        "chat_template.json": {"chat_template": ONEVISION_TEMPLATE},
    }
    special = ["<unk>", "<pad>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"]
    return _write(folder, files, special, "<|im_end|>")
