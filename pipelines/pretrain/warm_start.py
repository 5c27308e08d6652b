"""Weights to start from: other towers and language models begin with what the micro CLIP and the micro LLaVA know.

The transformer blocks of CLIP, SigLIP and InternViT compute the same. What differs is CLS (SigLIP has none) and the
norm before CLIP's first block. A block of its own takes the norm's place: its attention is idle, and its MLP gives the
norm exactly, as act(x) - act(-x) = x for the activations of all three; what the residual connection adds to it is made
small. So an InternViT starts as the CLIP, and a SigLIP as the CLIP without its CLS, which `train_tower.py` mends.
Llama's blocks fit Qwen2's with biases of zero.
"""

import re
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    CLIPVisionModel,
    InternVLVisionConfig,
    InternVLVisionModel,
    LlavaForConditionalGeneration,
    PreTrainedModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

TOWERS = ("internvit", "siglip")
SHRUNK = 1 / 32
"""The patch embedding of a started tower, relative to the CLIP's: what the residual carries past the norm's block."""
_INTERNVIT_NAMES = {
    r"^encoder\.layers\.": "encoder.layer.",
    r"\.self_attn\.out_proj\.": ".attention.projection_layer.",
    r"\.self_attn\.": ".attention.",
    r"\.layer_norm1\.": ".layernorm_before.",
    r"\.layer_norm2\.": ".layernorm_after.",
}


def tower_from_clip(kind: str, clip: Path) -> PreTrainedModel:
    """A tower of one of `TOWERS`, float32: a CLIP's norm as a block, then its blocks up to what an MLLM reads (-2)."""
    source = CLIPVisionModel.from_pretrained(clip, dtype=torch.float32).eval()
    told = source.config
    sizes = {
        "hidden_size": told.hidden_size,
        "intermediate_size": told.intermediate_size,
        "num_hidden_layers": told.num_hidden_layers,
        "num_attention_heads": told.num_attention_heads,
        "hidden_act": told.hidden_act,
        "layer_norm_eps": told.layer_norm_eps * SHRUNK**2,  # the same of what is shrunk; nothing elsewhere
    }
    side, patch = told.image_size, told.patch_size
    if kind == "siglip":
        config = SiglipVisionConfig(image_size=side, patch_size=patch, vision_use_head=False, **sizes)
        tower = SiglipVisionModel._from_config(config, attn_implementation="eager")
    else:
        config = InternVLVisionConfig(
            image_size=[side, side], patch_size=[patch, patch], attention_bias=True, layer_scale_init_value=1.0, **sizes
        )
        tower = InternVLVisionModel._from_config(config, attn_implementation="eager")
    missing, unexpected = tower.load_state_dict(_renamed(kind, source), strict=False)
    unexplained = [name for name in missing if not re.search(r"lambda_|post_layernorm|^layernorm", name)]
    if unexplained or unexpected:
        raise RuntimeError(f"{clip} does not fit a {kind}: {unexplained or unexpected}")
    return tower


@torch.no_grad()
def _renamed(kind: str, clip: CLIPVisionModel) -> dict[str, Tensor]:
    """The CLIP's weights under the names of another tower."""
    blocks = [block.state_dict() for block in clip.encoder.layers[:-1]]
    blocks.insert(0, _norm_as_block(clip))
    state = {f"encoder.layers.{n}.{name}": value for n, block in enumerate(blocks) for name, value in block.items()}
    embeddings = clip.embeddings
    weight_D3hw = SHRUNK * embeddings.patch_embedding.weight
    positions_TD = SHRUNK * embeddings.position_embedding.weight
    nothing_D = torch.zeros(len(weight_D3hw))
    if kind == "siglip":
        return state | {
            "embeddings.patch_embedding.weight": weight_D3hw,
            "embeddings.patch_embedding.bias": nothing_D,
            "embeddings.position_embedding.weight": positions_TD[1:],
        }
    for pattern, replacement in _INTERNVIT_NAMES.items():
        state = {re.sub(pattern, replacement, name): value for name, value in state.items()}
    return state | {
        "embeddings.patch_embeddings.projection.weight": weight_D3hw,
        "embeddings.patch_embeddings.projection.bias": nothing_D,
        "embeddings.cls_token": SHRUNK * embeddings.class_embedding[None, None],
        "embeddings.position_embeddings": positions_TD[None],
    }


def _norm_as_block(clip: CLIPVisionModel) -> dict[str, Tensor]:
    """A block of a CLIP's encoder that computes the norm before the first one."""
    norm = clip.pre_layrnorm
    block = {name: torch.zeros_like(value) for name, value in clip.encoder.layers[0].state_dict().items()}
    one_DD = torch.eye(len(norm.weight))
    if len(block["mlp.fc1.weight"]) != 2 * len(one_DD):
        raise RuntimeError("the MLP of a block must be twice as wide as the tower")
    return block | {
        "layer_norm1.weight": torch.ones_like(norm.weight),
        "layer_norm2.weight": torch.ones_like(norm.weight),
        "mlp.fc1.weight": torch.cat([one_DD, -one_DD]),
        "mlp.fc2.weight": torch.cat([one_DD, -one_DD], 1) * norm.weight[:, None],
        "mlp.fc2.bias": norm.bias,
    }


@torch.no_grad()
def start_language(model: PreTrainedModel, base: Path) -> None:
    """Give a model the language model of a micro LLaVA.

    Words that the micro LLaVA does not know stay as they are; layers that it does not have pass on what they are given.

    Raises RuntimeError where the sizes differ.
    """
    source = LlavaForConditionalGeneration.from_pretrained(base, dtype=torch.float32).model
    target = model.model.language_model
    state = source.language_model.state_dict()
    words_VE = state.pop("embed_tokens.weight")
    target.embed_tokens.weight[: len(words_VE)] = words_VE
    missing, unexpected = target.load_state_dict(state, strict=False)
    further = tuple(f"layers.{n}." for n in range(len(source.language_model.layers), len(target.layers)))
    idle = {name for name in missing if name.startswith(further)} if further else set()
    biases = {name for name in missing if name.endswith("_proj.bias")}
    for name in biases | {name for name in idle if name.endswith(("o_proj.weight", "down_proj.weight"))}:
        target.get_parameter(name).zero_()
    unexplained = set(missing) - biases - idle - {"embed_tokens.weight"}
    if unexplained or unexpected:
        raise RuntimeError(f"{base} does not fit: {sorted(unexplained) or unexpected}")


@torch.no_grad()
def start_projector(model: PreTrainedModel, base: Path, features_NTD: Tensor) -> None:
    """Give a model the projector of a micro LLaVA.

    An InternVL projects four patches at once, behind a norm of its own: it starts with what the LLaVA's makes of their
    mean, and a norm that changes little of `features_NTD`, what some views look like to the tower.
    """
    projector = model.model.multi_modal_projector
    state = LlavaForConditionalGeneration.from_pretrained(
        base, dtype=torch.float32
    ).model.multi_modal_projector.state_dict()
    norm = getattr(projector, "layer_norm", None)
    if norm is not None:
        together = len(norm.weight) // features_NTD.shape[-1]
        state["linear_1.weight"] = state["linear_1.weight"].repeat(1, together) / together
        state["layer_norm.weight"] = torch.full_like(norm.weight, float(features_NTD.float().std(-1).mean()))
        state["layer_norm.bias"] = torch.full_like(norm.bias, float(features_NTD.float().mean()))
    projector.load_state_dict(state)
