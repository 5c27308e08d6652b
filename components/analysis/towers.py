"""Vision towers to look into: CLIP, SigLIP and InternViT, alone or inside an MLLM, by a folder or a Hub name.

The codecs' guidance and the adapter know CLIP only (`components.vision`). Looking needs less: the model, the modules of
its layers, and where its tokens stand. An InternViT in the layout of the Hub's own code is read into transformers'
`InternVLVisionModel`, which computes the same; no code of a model's folder is run.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    InternVLVisionConfig,
    InternVLVisionModel,
    PreTrainedModel,
    SiglipModel,
    SiglipVisionModel,
)

from components.analysis.flow import Layout
from components.errors import CotamError
from components.files import read_json
from components.vision import TOWERS, Geometry
from components.weights import resolve


@dataclass(frozen=True)
class Tower:
    """A frozen tower in float32.

    Attributes:
        name: what figures call it.
        model: takes normalised pixels (B, 3, H, W).
        geometry: makes these of images.
        layout: of its tokens.
        layers: the encoder's layers, in order; each gives (B, T, D).
        attentions: the attention module of each layer.
    """

    name: str
    model: PreTrainedModel
    geometry: Geometry
    layout: Layout
    layers: list[nn.Module]
    attentions: list[nn.Module]

    @torch.inference_mode()
    def forward(self, pixels_B3HW: Tensor) -> None:
        """Run it, for those who listen."""
        self.model(pixels_B3HW)


def open_tower(path_or_name: Path | str) -> Tower:
    """Open a tower.

    Args:
        path_or_name: a folder, a registered version, or a Hugging Face name (`components.weights.resolve`).

    Raises:
        CotamError: there is none, it is damaged, or it is of a kind that is not known here.
    """
    folder = resolve(path_or_name)
    kind = _kind(folder)
    if kind not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise CotamError(f"{folder} holds a {kind!r} model; a tower to analyse must be one of {known}.")
    try:
        model = FAMILIES[kind](folder)
    except (OSError, RuntimeError, KeyError, SafetensorError) as error:
        raise CotamError(f"The weights in {folder} are missing or damaged ({error}); fetch them again.") from error
    return describe(
        model.float().eval().requires_grad_(False), Geometry.from_pretrained(folder), tower_name(path_or_name)
    )


def describe(model: PreTrainedModel, geometry: Geometry, name: str) -> Tower:
    """A tower that is there already, with what the analysis has to know of it.

    Raises:
        CotamError: the geometry does not make the pixels that it takes.
    """
    config = model.config
    size, patch = _pair(config.image_size), _pair(config.patch_size)
    if geometry.output_size != size:
        raise CotamError(
            f"The image processor makes {geometry.output_size} pixels but the tower {name} takes {size}; "
            "fix size and crop_size in its preprocessor_config.json."
        )
    if isinstance(model, InternVLVisionModel):
        layers, attention, cls = list(model.encoder.layer), "attention", 1
    else:
        layers, attention = list(model.encoder.layers), "self_attn"
        cls = 0 if isinstance(model, SiglipVisionModel) else 1
    layout = Layout(cls, (size[0] // patch[0], size[1] // patch[1]))
    return Tower(name, model, geometry, layout, layers, [getattr(layer, attention) for layer in layers])


def _clip(folder: Path) -> PreTrainedModel:
    return TOWERS[_kind(folder)](folder).model


def _siglip(folder: Path) -> PreTrainedModel:
    return _headless(_whole(SiglipModel, folder).vision_model)


def _siglip_vision(folder: Path) -> PreTrainedModel:
    return _headless(_whole(SiglipVisionModel, folder))


def _internvit(folder: Path) -> PreTrainedModel:
    return _whole(InternVLVisionModel, folder)


def _whole(kind: type[PreTrainedModel], folder: Path) -> PreTrainedModel:
    """A model with all of its tower's weights: transformers makes up what a file lacks, and only warns."""
    model, told = kind.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    unused = ("text_model.", "logit_", "head.", "vision_model.head.")
    if missing := sorted(name for name in told["missing_keys"] if not name.startswith(unused)):
        raise CotamError(f"{folder} has no weights for {missing[0]} of its tower; fetch them again.")
    return model


def _inside_mllm(folder: Path) -> PreTrainedModel:
    """The tower of a LLaVA-OneVision or an InternVL; its language model is not read."""
    config = AutoConfig.from_pretrained(folder).vision_config
    kinds: dict[str, type[PreTrainedModel]] = {
        "siglip_vision_model": SiglipVisionModel,
        "internvl_vision": InternVLVisionModel,
    }
    if config.model_type not in kinds:
        raise CotamError(f"{folder} sees through a {config.model_type!r}, which cannot be analysed.")
    tensors = {}
    for name, tensor in _tensors(folder):
        _, found, inner = name.partition("vision_tower.")
        if found:
            tensors[inner.removeprefix("vision_model.")] = tensor
    return _headless(_filled(kinds[config.model_type](config), tensors, folder))


def _hub_internvit(folder: Path) -> PreTrainedModel:
    """OpenGVLab's InternViT, alone or as `vision_model` of an InternVL2, in the layout of their own code."""
    told = read_json(folder / "config.json")
    told = told.get("vision_config", told)
    if "norm_type" not in told:
        raise CotamError(f"{folder / 'config.json'} does not say its norm_type; add layer_norm or rms_norm.")
    config = InternVLVisionConfig(
        hidden_size=told["hidden_size"],
        num_hidden_layers=told["num_hidden_layers"],
        num_attention_heads=told["num_attention_heads"],
        attention_bias=told.get("qkv_bias", False),
        use_qk_norm=told.get("qk_normalization", False),
        intermediate_size=told["intermediate_size"],
        hidden_act=told.get("hidden_act", "gelu"),
        norm_type=told["norm_type"],
        layer_norm_eps=told.get("layer_norm_eps", 1e-6),
        image_size=told["image_size"],
        patch_size=told["patch_size"],
    )
    tensors: dict[str, Tensor] = {}
    for name, tensor in _tensors(folder):
        if name.startswith(("embeddings.", "encoder.", "vision_model.")):
            tensors |= _renamed(name.removeprefix("vision_model."), tensor)
    return _filled(InternVLVisionModel(config), tensors, folder)


_HUB_NAMES = {
    r"^embeddings\.class_embedding$": "embeddings.cls_token",
    r"^embeddings\.patch_embedding\.": "embeddings.patch_embeddings.projection.",
    r"^embeddings\.position_embedding$": "embeddings.position_embeddings",
    r"^encoder\.layers\.": "encoder.layer.",
    r"\.attn\.proj\.": ".attention.projection_layer.",
    r"\.attn\.(q|k)_norm\.": r".attention.\1_norm.",
    r"\.ls([12])$": r".lambda_\1",
    r"\.norm1\.": ".layernorm_before.",
    r"\.norm2\.": ".layernorm_after.",
}


def _renamed(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """A tensor of the Hub's InternViT under transformers' names; the one of query, key and value becomes three."""
    for pattern, replacement in _HUB_NAMES.items():
        name = re.sub(pattern, replacement, name)
    if ".attn.qkv." not in name:
        return {name: tensor}
    parts = zip("qkv", tensor.chunk(3), strict=True)
    return {name.replace(".attn.qkv.", f".attention.{part}_proj."): piece for part, piece in parts}


def _headless(model: PreTrainedModel) -> PreTrainedModel:
    """Without SigLIP's pooling head, which comes after all that is looked at."""
    if hasattr(model, "use_head"):
        model.use_head = False
    return model


def _filled(model: PreTrainedModel, tensors: Mapping[str, Tensor], folder: Path) -> PreTrainedModel:
    missing = [name for name in model.load_state_dict(tensors, strict=False).missing_keys if "head." not in name]
    if missing:
        raise CotamError(f"{folder} has no weights for {missing[0]} of its vision tower; fetch them again.")
    return model


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 (not a mapping)
                yield name, weights.get_tensor(name)


FAMILIES: dict[str, Callable[[Path], PreTrainedModel]] = {
    **dict.fromkeys(TOWERS, _clip),
    "siglip": _siglip,
    "siglip_vision_model": _siglip_vision,
    "internvl_vision": _internvit,
    "llava_onevision": _inside_mllm,
    "internvl": _inside_mllm,
    "intern_vit_6b": _hub_internvit,
    "internvl_chat": _hub_internvit,
}


def _kind(folder: Path) -> str:
    """The `model_type`, read as it stands: transformers does not know those of the Hub's own code."""
    if not (folder / "config.json").is_file():
        raise CotamError(f"{folder} is not a Hugging Face model: it has no config.json.")
    told: Any = read_json(folder / "config.json")
    if not isinstance(told, dict) or not isinstance(told.get("model_type"), str):
        raise CotamError(f"{folder / 'config.json'} names no model_type; it is no Hugging Face model's.")
    return told["model_type"]


def tower_name(path_or_name: Path | str) -> str:
    """The last two parts of a path or a Hub name: `clip/micro`, `openai/clip-vit-large-patch14-336`."""
    return "/".join(Path(str(path_or_name)).parts[-2:]).lstrip("/")


def _pair(size: int | list[int] | tuple[int, ...]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
