"""Tiny random models in the formats of the shipped ones: real Hugging Face folders that build in a second.

They answer nonsense, but every shape, file and code path is that of the real models: 128-pixel images, 16-pixel
patches, a CLS token, a LLaVA that consumes hidden state -2, a word-level tokenizer and LLaVA-1.5's chat template.
"""

from pathlib import Path

PATCH = 16
IMAGE = 128
WIDTH = 32
LAYERS = 4

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() }}: "
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %} {% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)

WORDS = """
USER ASSISTANT : ? . , ( ) A B C D E How many circles squares triangles are there Is a red blue green yellow circle
square triangle in the picture What colour is number word shown yes no one two three four five six seven eight nine zero
small large left right top bottom Answer with option 's letter from given choices directly or
"""


def tiny_tokenizer():
    """A word-level tokenizer over `WORDS` with LLaVA's special tokens and left padding."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
    vocabulary = {token: index for index, token in enumerate(special + list(dict.fromkeys(WORDS.split())))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
        padding_side="left",
    )


def tiny_image_processor():
    """The processor of the shipped models: shortest edge to 128, centre crop, CLIP's mean and deviation."""
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor(size={"shortest_edge": IMAGE}, crop_size={"height": IMAGE, "width": IMAGE})


def _vision_config():
    from transformers import CLIPVisionConfig

    return CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        image_size=IMAGE,
        patch_size=PATCH,
        projection_dim=WIDTH,
        # The default scale leaves a tiny random tower nearly blind: images would all answer alike.
        initializer_factor=5.0,
    )


def tiny_clip_folder(folder: Path | str, seed: int = 0) -> Path:
    """Write a random `CLIPModel` with its image processor to `folder`; return the folder."""
    import torch
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig

    text = CLIPTextConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=64,
        max_position_embeddings=32,
        projection_dim=WIDTH,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    config = CLIPConfig(text_config=text.to_dict(), vision_config=_vision_config().to_dict(), projection_dim=WIDTH)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = CLIPModel(config)
    model.save_pretrained(folder)
    tiny_image_processor().save_pretrained(folder)
    return Path(folder)


def tiny_llava_folder(folder: Path | str, seed: int = 0) -> Path:
    """Write a random `LlavaForConditionalGeneration` with its processor to `folder`; return the folder."""
    import torch
    from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    tokenizer = tiny_tokenizer()
    text = LlamaConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=len(tokenizer),
        max_position_embeddings=1024,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        # As above: answers should differ between images and prompts.
        initializer_range=0.3,
    )
    config = LlavaConfig(
        vision_config=_vision_config().to_dict(),
        text_config=text.to_dict(),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(IMAGE // PATCH) ** 2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    processor = LlavaProcessor(
        image_processor=tiny_image_processor(),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    processor.save_pretrained(folder)
    return Path(folder)
