"""InternViT: a CLS token, layer scales. InternVL sees through it.

An InternViT in the layout of the Hub's own code is read into transformers' `InternVLVisionModel`, which computes the
same; no code of a model's folder is run.
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import InternVLVisionConfig, InternVLVisionModel

from components.errors import CotamError
from components.files import read_json
from components.vision.geometry import Geometry
from components.vision.reading import filled, tensors_of
from components.vision.told import as_told_by
from components.vision.tower import Parts, Tower


class InternVitTower(Tower):
    """An `InternVLVisionModel`."""

    model_class = InternVLVisionModel

    @property
    def blocks(self) -> nn.ModuleList:
        """The encoder's layers, in order."""
        return self.model.encoder.layer

    @staticmethod
    def parts(block: nn.Module) -> Parts:
        """What one of `blocks` is made of."""
        attention, mlp = block.attention, block.mlp
        return Parts(
            norms=(block.layernorm_before, block.layernorm_after),
            query=attention.q_proj,
            key=attention.k_proj,
            value=attention.v_proj,
            out=attention.projection_layer,
            heads=attention.num_heads,
            scaling=attention.scale,
            fc1=mlp.fc1,
            fc2=mlp.fc2,
            activation=mlp.activation_fn,
            query_norm=attention.q_norm,
            key_norm=attention.k_norm,
            layer_scales=(block.lambda_1, block.lambda_2),
        )

    @property
    def _convolution(self) -> nn.Module:
        return self.model.embeddings.patch_embeddings.projection

    def _embed(self, patches_BND: Tensor) -> Tensor:
        embeddings = self.model.embeddings
        patches_BND = patches_BND.to(self.model.dtype)
        tokens_BTD = torch.cat([embeddings.cls_token.expand(len(patches_BND), -1, -1), patches_BND], dim=1)
        positions_1TD = embeddings.position_embeddings
        return tokens_BTD if positions_1TD is None else tokens_BTD + positions_1TD

    def _layer(self, block: nn.Module, hidden_BTD: Tensor) -> Tensor:
        return block(hidden_BTD)

    def _told(self, depth: int, hidden_BTD: Tensor) -> Tensor:
        """InternVL reads the deepest state through the model's last norm (the published models have none)."""
        return self.model.layernorm(hidden_BTD) if depth == self.layers else hidden_BTD


def hub_internvit_tower(folder: Path) -> InternVitTower:
    """OpenGVLab's InternViT, alone or as `vision_model` of an InternVL2, in the layout of their own code."""
    told = read_json(folder / "config.json")
    with as_told_by(folder / "config.json"):
        config = hub_config(told.get("vision_config", told), folder)
    tensors: dict[str, Tensor] = {}
    for name, tensor in tensors_of(folder, lambda name: name.startswith(("embeddings.", "encoder.", "vision_model."))):
        tensors |= hub_renamed(name.removeprefix("vision_model."), tensor)
    model = filled(InternVLVisionModel(config), tensors, folder)
    return InternVitTower(model, Geometry.from_pretrained(folder), feature_layer=told.get("select_layer"))


def hub_config(told: dict[str, Any], folder: Path) -> InternVLVisionConfig:
    """The configuration that the Hub's code reads, as transformers has it. Raises CotamError for one without norm."""
    if "norm_type" not in told:
        raise CotamError(f"{folder / 'config.json'} does not say its norm_type; add layer_norm or rms_norm.")
    return InternVLVisionConfig(
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


def hub_renamed(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """A tensor of the Hub's InternViT under transformers' names; the one of query, key and value becomes three."""
    for pattern, replacement in _HUB_NAMES.items():
        name = re.sub(pattern, replacement, name)
    if ".attn.qkv." not in name:
        return {name: tensor}
    parts = zip("qkv", tensor.chunk(3), strict=True)
    return {name.replace(".attn.qkv.", f".attention.{part}_proj."): piece for part, piece in parts}
