"""The paper's MLLMs at full size without their weights: what their published config.json files say.

What needs shapes alone (parameters, memory, tokens per image) is computed on PyTorch's meta device, where a tensor has
a shape and no memory, so that it can be known, and tested, before 15 GB are fetched.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    InternVLConfig,
    InternVLVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaOnevisionConfig,
    PreTrainedConfig,
    Qwen2Config,
    SiglipVisionConfig,
)

from components.mllm.family import Family
from components.mllm.internvl import InternVL
from components.mllm.llava import Llava
from components.mllm.onevision import OneVision
from components.mllm.view import View
from components.mllm.visual import Kind, Size, Visual
from components.vision import Geometry
from components.vision.tiling import AnyRes, Cut, Mosaic

HALF = (0.5, 0.5, 0.5)  # mean and deviation matter to no shape


@dataclass(frozen=True)
class FullSize:
    """One of the paper's MLLMs.

    Attributes:
        hub: its name on Hugging Face.
        published: parameters that its page there shows.
        config: as its config.json says.
        around: the family around a model of it.
    """

    hub: str
    published: str
    config: Callable[[], PreTrainedConfig]
    around: Callable[[torch.nn.Module], Family]

    def on_meta(self) -> Family:
        """The whole model on the meta device."""
        config = self.config()
        with torch.device("meta"):
            return self.around(MODEL_CLASSES[type(config)](config))


def _llava(**language: int) -> LlavaConfig:
    vision = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
        projection_dim=768,
    )
    text = LlamaConfig(vocab_size=32064, max_position_embeddings=4096, rms_norm_eps=1e-5, **language)
    return LlavaConfig(vision_config=vision.to_dict(), text_config=text.to_dict(), image_token_index=32000)


def llava_7b() -> LlavaConfig:
    """Vicuna-7B behind CLIP-L at 336 pixels."""
    return _llava(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32)


def llava_13b() -> LlavaConfig:
    """Vicuna-13B behind the same."""
    return _llava(hidden_size=5120, intermediate_size=13824, num_hidden_layers=40, num_attention_heads=40)


def onevision_7b() -> LlavaOnevisionConfig:
    """Qwen2-7B behind 26 layers of SigLIP-so400m at 384 pixels; tiles on up to 6 x 6."""
    vision = SiglipVisionConfig(
        hidden_size=1152,
        intermediate_size=4304,
        num_hidden_layers=26,
        num_attention_heads=16,
        image_size=384,
        patch_size=14,
        vision_use_head=False,
    )
    text = Qwen2Config(
        vocab_size=152128,
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        max_position_embeddings=32768,
        tie_word_embeddings=False,
    )
    return LlavaOnevisionConfig(vision_config=vision.to_dict(), text_config=text.to_dict())


def internvl2_8b() -> InternVLConfig:
    """InternLM2.5-7B behind InternViT-300M at 448 pixels; up to 12 tiles."""
    vision = InternVLVisionConfig(attention_bias=True)
    text = LlamaConfig(
        vocab_size=92553,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=32768,
    )
    return InternVLConfig(
        vision_config=vision.to_dict(), text_config=text.to_dict(), image_token_id=92546, tie_word_embeddings=False
    )


MODEL_CLASSES = {
    LlavaConfig: Llava.model_class,
    LlavaOnevisionConfig: OneVision.model_class,
    InternVLConfig: InternVL.model_class,
}


def _around_llava(model: torch.nn.Module) -> Llava:
    return Llava(model, Geometry(HALF, HALF, shortest_edge=336, crop=(336, 336)))


def _around_onevision(model: torch.nn.Module) -> OneVision:
    whole = Geometry(HALF, HALF, exact_size=(384, 384))
    return OneVision(model, AnyRes(whole, tuple(map(tuple, model.config.image_grid_pinpoints))), whole)


def _around_internvl(model: torch.nn.Module) -> InternVL:
    whole = Geometry(HALF, HALF, exact_size=(448, 448))
    return InternVL(model, Mosaic(whole, 1, 12), whole)


FULL_SIZE: dict[str, FullSize] = {
    "llava-1_5-7b": FullSize("llava-hf/llava-1.5-7b-hf", "7.06B", llava_7b, _around_llava),
    "llava-1_5-13b": FullSize("llava-hf/llava-1.5-13b-hf", "13.4B", llava_13b, _around_llava),
    "llava-onevision-7b": FullSize(
        "llava-hf/llava-onevision-qwen2-7b-ov-hf", "8.03B", onevision_7b, _around_onevision
    ),
    "internvl2-8b": FullSize("OpenGVLab/InternVL2-8B", "8.08B", internvl2_8b, _around_internvl),
}
"""By the names of profiles/paper.yaml."""


def tokens(family: Family, kind: Kind, image_size: Size, count: int = 1) -> int:
    """How many tokens the language model reads of an image, or of a video of `count` frames, of this size.

    `family` is on the meta device.
    """
    framing = family.framing(kind, image_size)
    views = len(framing.windows) if isinstance(framing, Cut) else 1
    embedded = [_one_view(family).expand(views, -1, -1)] * count
    with torch.device("meta"):
        return sum(len(part) for part in family.arrange(Visual(kind, ((),) * count, (image_size,) * count), embedded))


@lru_cache(maxsize=len(FULL_SIZE))
def _one_view(family: Family) -> Tensor:
    """What the projector makes of one view, (1, n, E); the same for all."""
    height, width = family.geometry.output_size
    with torch.device("meta"):
        return family.embed([View(torch.empty(3, height, width))])
