"""InternVL2 in the layout in which OpenGVLab publishes it: random weights, tiny, with every name of the real files.

And InternLM2's forward pass, written from its definition on these names: one matrix for queries, keys and values.
"""

import json
from dataclasses import dataclass
from pathlib import Path

SIDE, PATCH, WIDTH = 56, 14, 32
HEADS, KEY_HEADS, LAYERS, WORDS = 4, 2, 3, 24
ADDED = ["<|im_end|>", "<|im_start|>", "<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>"]


def _sentencepiece(folder: Path) -> int:
    """tokenizer.model, trained on a few lines as InternLM2's is: BPE with bytes, no blank before a text."""
    import sentencepiece

    lines = folder / "lines.txt"
    colours, shapes = ("red", "green", "blue", "yellow"), ("circle", "square", "triangle", "star")
    sentences = [f"Is there a {colour} {shape} in the picture?" for colour in colours for shape in shapes]
    sentences += [f"How many {shape}s are there? Answer yes or no. user assistant" for shape in shapes]
    lines.write_text("\n".join(sentences * 4))
    sentencepiece.SentencePieceTrainer.train(
        input=str(lines),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=340,
        byte_fallback=True,
        add_dummy_prefix=False,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        character_coverage=1.0,
        user_defined_symbols=["[UNUSED_TOKEN_0]", "[UNUSED_TOKEN_1]"],
        minloglevel=2,
    )
    lines.unlink()
    (folder / "tokenizer.vocab").unlink()
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model")).get_piece_size()


def _write_tokenizer(folder: Path) -> int:
    import sentencepiece

    pieces = _sentencepiece(folder)
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    unused = [model.piece_to_id(f"[UNUSED_TOKEN_{number}]") for number in (0, 1)]
    numbers = [*unused, *range(pieces, pieces + len(ADDED) - 2)]
    entry = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    added = {number: {"content": content, **entry} for number, content in enumerate(["<unk>", "<s>", "</s>"])}
    added |= {number: {"content": content, **entry} for number, content in zip(numbers, ADDED, strict=True)}
    config = {
        "added_tokens_decoder": {str(number): value for number, value in added.items()},
        "auto_map": {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]},
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "</s>",
        "tokenizer_class": "InternLM2Tokenizer",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return pieces + len(ADDED) - 2


@dataclass(frozen=True)
class Sizes:
    """What shapes follow from; the defaults are the tiny model's."""

    vocabulary: int
    vision: int = WIDTH
    vision_hidden: int = 2 * WIDTH
    vision_layers: int = LAYERS
    patches: int = (SIDE // PATCH) ** 2
    language: int = WIDTH
    language_hidden: int = 2 * WIDTH
    language_layers: int = LAYERS
    heads: int = HEADS
    key_heads: int = KEY_HEADS


def published_shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Every tensor of an InternVL2, by its published name."""
    vision, language, joined = sizes.vision, sizes.language, 4 * sizes.vision
    shapes = {
        "vision_model.embeddings.class_embedding": (1, 1, vision),
        "vision_model.embeddings.patch_embedding.weight": (vision, 3, PATCH, PATCH),
        "vision_model.embeddings.patch_embedding.bias": (vision,),
        "vision_model.embeddings.position_embedding": (1, sizes.patches + 1, vision),
        "language_model.model.tok_embeddings.weight": (sizes.vocabulary, language),
        "language_model.model.norm.weight": (language,),
        "language_model.output.weight": (sizes.vocabulary, language),
        "mlp1.0.weight": (joined,),
        "mlp1.0.bias": (joined,),
        "mlp1.1.weight": (language, joined),
        "mlp1.1.bias": (language,),
        "mlp1.3.weight": (language, language),
        "mlp1.3.bias": (language,),
    }
    for layer in range(sizes.vision_layers):
        name = f"vision_model.encoder.layers.{layer}."
        shapes |= {f"{name}ls{number}": (vision,) for number in (1, 2)}
        shapes |= {f"{name}norm{number}.{kind}": (vision,) for number in (1, 2) for kind in ("weight", "bias")}
        for part, (rows, columns) in {
            "attn.qkv": (3 * vision, vision),
            "attn.proj": (vision, vision),
            "mlp.fc1": (sizes.vision_hidden, vision),
            "mlp.fc2": (vision, sizes.vision_hidden),
        }.items():
            shapes |= {f"{name}{part}.weight": (rows, columns), f"{name}{part}.bias": (rows,)}
    for layer in range(sizes.language_layers):
        name = f"language_model.model.layers.{layer}."
        rows = (sizes.heads + 2 * sizes.key_heads) * (language // sizes.heads)
        shapes |= {
            f"{name}attention.wqkv.weight": (rows, language),
            f"{name}attention.wo.weight": (language, language),
            f"{name}attention_norm.weight": (language,),
            f"{name}ffn_norm.weight": (language,),
            f"{name}feed_forward.w1.weight": (sizes.language_hidden, language),
            f"{name}feed_forward.w2.weight": (language, sizes.language_hidden),
            f"{name}feed_forward.w3.weight": (sizes.language_hidden, language),
        }
    return shapes


def published_folder(folder: Path, shards: int = 2) -> Path:
    """Write a random InternVL2 to `folder`; return the folder."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = _write_tokenizer(folder)
    generator = torch.Generator().manual_seed(5)
    tensors = {
        name: 0.3 * torch.randn(shape, generator=generator)
        + (1.0 if ("norm" in name and name.endswith("weight")) or ".ls" in name or name == "mlp1.0.weight" else 0.0)
        for name, shape in published_shapes(Sizes(vocabulary)).items()
    }
    names = sorted(tensors)
    index = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in names[shard::shards]}
        save_file(part, folder / file, {"format": "pt"})
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    language = {
        "architectures": ["InternLM2ForCausalLM"],
        "bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "max_position_embeddings": 2048,
        "model_type": "internlm2",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KEY_HEADS,
        "pad_token_id": 2,
        "rms_norm_eps": 1e-5,
        "rope_scaling": {"factor": 2.0, "type": "dynamic"},
        "rope_theta": 1000000,
        "tie_word_embeddings": False,
        "vocab_size": vocabulary,
    }
    vision = {
        "architectures": ["InternVisionModel"],
        "hidden_act": "gelu",
        "hidden_size": WIDTH,
        "image_size": SIDE,
        "intermediate_size": 2 * WIDTH,
        "layer_norm_eps": 1e-6,
        "model_type": "intern_vit_6b",
        "norm_type": "layer_norm",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "patch_size": PATCH,
        "qk_normalization": False,
        "qkv_bias": True,
    }
    config = {
        "architectures": ["InternVLChatModel"],
        "auto_map": {"AutoModel": "modeling_internvl_chat.InternVLChatModel"},
        "downsample_ratio": 0.5,
        "dynamic_image_size": True,
        "force_image_size": SIDE,
        "llm_config": language,
        "max_dynamic_patch": 4,
        "min_dynamic_patch": 1,
        "model_type": "internvl_chat",
        "ps_version": "v2",
        "select_layer": -1,
        "template": "internlm2-chat",
        "torch_dtype": "bfloat16",
        "use_thumbnail": True,
        "vision_config": vision,
    }
    (folder / "config.json").write_text(json.dumps(config))
    processor = {
        "crop_size": SIDE,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "resample": 3,
        "size": SIDE,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def published_tensors(folder: Path) -> dict:
    """All of them, by their published names."""
    from safetensors.torch import load_file

    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def internlm2_logits(tensors: dict, embeddings_TE, positions_T):
    """InternLM2 on a sequence of embeddings: logits (T, vocabulary), in float64."""
    import torch

    def norm(x, weight):
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight

    def turn(x_Td):
        """Rotary embedding: halves of a head are the two coordinates of its planes."""
        head = x_Td.shape[-1]
        angles = positions_T.double()[:, None] / 1000000 ** (torch.arange(0, head, 2).double() / head)
        one, other = x_Td[:, : head // 2], x_Td[:, head // 2 :]
        return torch.cat([one * angles.cos() - other * angles.sin(), other * angles.cos() + one * angles.sin()], -1)

    weights = {name: tensor.double() for name, tensor in tensors.items() if name.startswith("language_model.")}
    x_TE, head, group = embeddings_TE.double(), WIDTH // HEADS, HEADS // KEY_HEADS
    future = torch.ones(len(x_TE), len(x_TE), dtype=torch.bool).triu(1)
    for layer in range(LAYERS):
        of = {name.split(f"layers.{layer}.")[1]: w for name, w in weights.items() if f"layers.{layer}." in name}
        fused = norm(x_TE, of["attention_norm.weight"]) @ of["attention.wqkv.weight"].T
        heads = []
        for key_head in range(KEY_HEADS):
            start = key_head * (group + 2) * head
            pieces = fused[:, start : start + (group + 2) * head].split(head, dim=1)
            key, value = turn(pieces[-2]), pieces[-1]
            for query in pieces[:-2]:
                scores = (turn(query) @ key.T / head**0.5).masked_fill(future, float("-inf"))
                heads.append(scores.softmax(-1) @ value)
        x_TE = x_TE + torch.cat(heads, 1) @ of["attention.wo.weight"].T
        inner = norm(x_TE, of["ffn_norm.weight"])
        gate, up = (inner @ of[f"feed_forward.w{number}.weight"].T for number in (1, 3))
        x_TE = x_TE + (torch.nn.functional.silu(gate) * up) @ of["feed_forward.w2.weight"].T
    return norm(x_TE, weights["language_model.model.norm.weight"]) @ weights["language_model.output.weight"].T
