"""The processor of a published InternVL2: InternLM2's sentencepiece tokenizer, its chat format, its tiles.

The published tokenizer is code beside `tokenizer.model`. What it computes is a byte-fallback BPE, which `tokenizers`
has; added tokens, with their numbers, are in tokenizer_config.json.
"""

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, processors
from tokenizers.models import BPE
from transformers import (
    GotOcr2ImageProcessor,
    InternVLProcessor,
    InternVLVideoProcessor,
    PreTrainedTokenizerFast,
)
from transformers.tokenization_utils_sentencepiece import SentencePieceExtractor

from components.errors import CotamError
from components.files import read_json
from components.mllm.internvl2_weights import tokens_per_tile
from components.vision.told import as_told_by

NAMED = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",  # never reaches the model: the processor writes frames in its place
}
END = "<|im_end|>"
PROBE = "  Ein  Zürich\n\t東京 ﬁ 🙂 12,5% [x]<y> "
"""Text in which another way of cutting would show."""

# What the published code calls internlm2-chat, with the system message that its benchmarks were run with.
CHAT_TEMPLATE = (
    "{{ '<|im_start|>system\n你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, "  # noqa: RUF001
    "是一个有用无害的人工智能助手。<|im_end|>' }}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}"
    "{% elif part['type'] == 'video' %}{{ '<video>\n' }}"
    "{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def published_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """InternLM2's tokenizer.

    Raises:
        CotamError: a file is missing or damaged, or the tokens that InternVL adds are not there.
    """
    told, added = _added(folder / "tokenizer_config.json")
    pieces, merges, prefix, probe = _sentencepiece(folder / "tokenizer.model")
    # Some stand in the place of a piece that was kept free for them.
    names = [added[number].content if number in added else piece for number, piece in enumerate(pieces)]
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    blanks = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), blanks]) if prefix else blanks
    stripped = [decoders.Strip(" ", left=1)] if prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *stripped]
    )
    if tokenizer.encode(PROBE).ids != probe:
        raise CotamError(f"{folder}/tokenizer.model cuts text in a way that is not known; it is no InternLM2's.")
    tokenizer.add_special_tokens([added[number] for number in sorted(added)])
    for number, token in added.items():
        if tokenizer.token_to_id(token.content) != number:
            raise CotamError(f"{folder}: {token.content} cannot be token {number}; fetch the tokenizer again.")
    for name in (END, *list(NAMED.values())[:3]):
        if tokenizer.token_to_id(name) is None:
            raise CotamError(f"{folder} has no token {name}; it is no InternVL2's tokenizer.")
    if told.get("add_bos_token", True):
        start = tokenizer.token_to_id("<s>")
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", start)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="</s>",
        extra_special_tokens=NAMED,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _added(path: Path) -> tuple[dict[str, Any], dict[int, AddedToken]]:
    """What tokenizer_config.json says, and the tokens that it adds, by their numbers."""
    told = read_json(path)
    with as_told_by(path):
        return told, {
            int(number): AddedToken(entry["content"], normalized=False, special=True)
            for number, entry in told.get("added_tokens_decoder", {}).items()
        }


def _sentencepiece(path: Path) -> tuple[list[str], list[tuple[str, str]], bool, list[int]]:
    """Pieces in the order of their numbers, merges, whether a blank is put before every text; and PROBE, cut."""
    if not path.is_file():
        raise CotamError(f"{path} does not exist; fetch the model's tokenizer again.")
    try:
        extractor = SentencePieceExtractor(str(path))
    except RuntimeError:
        raise CotamError(f"{path} is no sentencepiece model; fetch it again.") from None
    vocabulary, _, merges = extractor.extract()
    prefix = extractor.sp.encode("a", out_type=str)[0].startswith("▁")
    return sorted(vocabulary, key=vocabulary.get), merges, prefix, extractor.sp.encode(PROBE)


def published_processor(folder: Path) -> InternVLProcessor:
    """The whole processor: tiles as config.json and preprocessor_config.json say.

    Raises:
        CotamError: a file is missing or damaged, or leaves something out.
    """
    config, preprocessor = folder / "config.json", folder / "preprocessor_config.json"
    told, seen = read_json(config), read_json(preprocessor)
    with as_told_by(config):
        side = int(told.get("force_image_size") or told["vision_config"]["image_size"])
        tiles = {"min_patches": int(told["min_dynamic_patch"]), "max_patches": int(told["max_dynamic_patch"])}
        tokens = tokens_per_tile(told)
    with as_told_by(preprocessor):
        common: dict[str, Any] = {
            "size": {"height": side, "width": side},
            "image_mean": list(map(float, seen["image_mean"])),
            "image_std": list(map(float, seen["image_std"])),
            "resample": int(seen.get("resample", 3)),
        }
    return InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(crop_to_patches=True, **common, **tiles),
        tokenizer=published_tokenizer(folder),
        video_processor=InternVLVideoProcessor(**common),
        image_seq_length=tokens,
        chat_template=CHAT_TEMPLATE,
    )
