"""InternVL2 as OpenGVLab publishes it, read into transformers' `InternVLForConditionalGeneration`.

`OpenGVLab/InternVL2-8B` comes for code of its own, which is not run here. Its language model, InternLM2, is a Llama
under other names, with queries, keys and values of a layer in one matrix; its vision tower is an InternViT
(`components.vision.internvit`); `mlp1` is the projector. The numbers stay as they are.
"""

import re
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import InternVLConfig, LlamaConfig

from components.errors import CotamError
from components.files import read_json
from components.vision.internvit import hub_config, hub_renamed
from components.vision.reading import tensors_of
from components.vision.told import as_told_by
from components.weights import no_weights

PUBLISHED = "internvl_chat"
"""The `model_type` of such a folder."""

_LANGUAGE = {
    r"^language_model\.model\.tok_embeddings\.": "model.language_model.embed_tokens.",
    r"^language_model\.output\.": "lm_head.",
    r"^language_model\.model\.": "model.language_model.",
    r"\.attention\.wo\.": ".self_attn.o_proj.",
    r"\.attention\.wqkv\.": ".self_attn.wqkv.",
    r"\.feed_forward\.w1\.": ".mlp.gate_proj.",
    r"\.feed_forward\.w2\.": ".mlp.down_proj.",
    r"\.feed_forward\.w3\.": ".mlp.up_proj.",
    r"\.attention_norm\.": ".input_layernorm.",
    r"\.ffn_norm\.": ".post_attention_layernorm.",
}
_PROJECTOR = {
    "mlp1.0.": "model.multi_modal_projector.layer_norm.",
    "mlp1.1.": "model.multi_modal_projector.linear_1.",
    "mlp1.3.": "model.multi_modal_projector.linear_2.",
}


def published_config(folder: Path, image_token_id: int) -> InternVLConfig:
    """The configuration of a published folder, as transformers has it.

    Raises:
        CotamError: its language model is no InternLM2, it shuffles pixels in another way, or it leaves something out.
    """
    told = read_json(folder / "config.json")
    with as_told_by(folder / "config.json"):
        language = told["llm_config"]
        if language["architectures"] != ["InternLM2ForCausalLM"]:
            raise CotamError(
                f"{folder} has a {language['architectures'][0]} for language; only InternLM2 can be read, as in "
                "InternVL2-8B. Of others use the version for transformers (a name that ends in -hf)."
            )
        if told["ps_version"] != "v2":
            raise CotamError(f"{folder} shuffles pixels as {told['ps_version']}; only v2 is known.")
        return InternVLConfig(
            vision_config=hub_config(told["vision_config"], folder).to_dict(),
            text_config=_text_config(language).to_dict(),
            image_token_id=image_token_id,
            image_seq_length=tokens_per_tile(told),
            downsample_ratio=told["downsample_ratio"],
            vision_feature_layer=told["select_layer"],
            tie_word_embeddings=language.get("tie_word_embeddings", False),
        )


def _text_config(told: dict[str, Any]) -> LlamaConfig:
    rope = {"rope_type": "default", "rope_theta": told["rope_theta"]}
    if scaling := told.get("rope_scaling"):
        rope |= {"rope_type": scaling["type"], "factor": scaling["factor"]}
    return LlamaConfig(
        vocab_size=told["vocab_size"],
        hidden_size=told["hidden_size"],
        intermediate_size=told["intermediate_size"],
        num_hidden_layers=told["num_hidden_layers"],
        num_attention_heads=told["num_attention_heads"],
        num_key_value_heads=told.get("num_key_value_heads") or told["num_attention_heads"],
        hidden_act=told["hidden_act"],
        max_position_embeddings=told["max_position_embeddings"],
        rms_norm_eps=told["rms_norm_eps"],
        rope_parameters=rope,
        attention_bias=told["bias"],
        tie_word_embeddings=told.get("tie_word_embeddings", False),
        bos_token_id=told.get("bos_token_id", 1),
        eos_token_id=told.get("eos_token_id", 2),
        pad_token_id=told.get("pad_token_id", 2),
    )


def tokens_per_tile(told: dict[str, Any]) -> int:
    """How many tokens a tile becomes, by the published config.json."""
    side = told.get("force_image_size") or told["vision_config"]["image_size"]
    return int((side // told["vision_config"]["patch_size"]) ** 2 * told["downsample_ratio"] ** 2)


def published_weights(folder: Path, config: InternVLConfig) -> dict[str, Tensor]:
    """Every tensor of a published folder under transformers' name, in its own type.

    Raises:
        CotamError: there are none.
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in tensors_of(folder):
        tensors |= renamed(name, tensor, config.text_config)
    if not tensors:
        raise no_weights(folder)
    return tensors


def renamed(name: str, tensor: Tensor, language: LlamaConfig) -> dict[str, Tensor]:
    """A published tensor under transformers' name; the one of queries, keys and values becomes three.

    Raises:
        CotamError: the name is none of an InternVL2's.
    """
    if name.startswith("vision_model."):
        inner = hub_renamed(name.removeprefix("vision_model."), tensor)
        return {f"model.vision_tower.{name}": piece for name, piece in inner.items()}
    for before, after in _PROJECTOR.items():
        if name.startswith(before):
            return {after + name.removeprefix(before): tensor}
    if not name.startswith("language_model."):
        raise CotamError(f"An InternVL2 has no weights called {name}; is this one?")
    for pattern, after in _LANGUAGE.items():
        name = re.sub(pattern, after, name)
    if ".wqkv." not in name:
        return {name: tensor}
    return {name.replace(".wqkv.", f".{part}_proj."): piece for part, piece in split(tensor, language).items()}


def split(wqkv: Tensor, language: LlamaConfig) -> dict[str, Tensor]:
    """InternLM2's one matrix (or bias) as three: rows come per key head as its queries, its key, its value."""
    queries = language.num_attention_heads // language.num_key_value_heads
    head = language.hidden_size // language.num_attention_heads
    grouped = wqkv.unflatten(0, (language.num_key_value_heads, queries + 2, head))
    parts = {
        "q": grouped[:, :queries].flatten(0, 2),
        "k": grouped[:, -2].flatten(0, 1),
        "v": grouped[:, -1].flatten(0, 1),
    }
    return {part: piece.contiguous() for part, piece in parts.items()}
