"""Tiny random towers in the layout of the Hub: SigLIP, InternViT in both of its layouts, and CLIP-L at 336 pixels.

What is tested on them is the code's reading and looking; what random towers see means nothing.
"""

import json
from pathlib import Path

WIDTH = 32


def write_folder(model, folder: Path, processor: dict) -> Path:
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def processor_of(kind: str, side: int, square: bool) -> dict:
    size = {"height": side, "width": side} if square else {"shortest_edge": side}
    return {
        "image_processor_type": kind,
        "do_resize": True,
        "size": size,
        "do_center_crop": not square,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "resample": 3,
    }


def siglip_folder(folder: Path, layers: int = 9) -> Path:
    """A `SiglipVisionModel`: no CLS, 6 x 6 patches."""
    import torch
    from transformers import SiglipVisionConfig, SiglipVisionModel

    config = SiglipVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=4,
        image_size=48,
        patch_size=8,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return write_folder(SiglipVisionModel(config), folder, processor_of("SiglipImageProcessor", 48, square=True))


def internvit(layers: int = 9):
    """A random `InternVLVisionModel` that is not nearly blind: CLS, 7 x 7 patches."""
    import torch
    from transformers import InternVLVisionConfig, InternVLVisionModel

    config = InternVLVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=4,
        attention_bias=True,
        image_size=56,
        patch_size=8,
        layer_scale_init_value=1.0,
        initializer_range=0.3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = InternVLVisionModel(config)
        for parameter in (model.embeddings.cls_token, model.embeddings.position_embeddings):
            torch.nn.init.normal_(parameter, std=0.5)
    return model


def internvit_folder(folder: Path, layers: int = 9) -> Path:
    """In transformers' layout."""
    return write_folder(internvit(layers), folder, processor_of("CLIPImageProcessor", 56, square=False))


def hub_internvit_folder(folder: Path, layers: int = 9) -> Path:
    """The same weights as OpenGVLab's own code has them: `qkv` in one tensor, other names, another `model_type`."""
    import torch
    from safetensors.torch import save_file

    model = internvit(layers)
    tensors = {}
    names = {
        "embeddings.cls_token": "embeddings.class_embedding",
        "embeddings.patch_embeddings.projection": "embeddings.patch_embedding",
        "embeddings.position_embeddings": "embeddings.position_embedding",
        "encoder.layer.": "encoder.layers.",
        "attention.projection_layer": "attn.proj",
        "lambda_": "ls",
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
    }
    state = model.state_dict()
    for name, tensor in state.items():
        if ".q_proj." in name:
            parts = [state[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            name, tensor = name.replace("attention.q_proj", "attn.qkv"), torch.cat(parts)
        elif "_proj." in name:
            continue
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        tensors[name] = tensor.contiguous()
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = {
        "architectures": ["InternVisionModel"],
        "auto_map": {"AutoModel": "modeling_intern_vit.InternVisionModel"},
        "hidden_act": "gelu",
        "hidden_size": WIDTH,
        "image_size": 56,
        "intermediate_size": 2 * WIDTH,
        "layer_norm_eps": 1e-6,
        "model_type": "intern_vit_6b",
        "norm_type": "layer_norm",
        "num_attention_heads": 4,
        "num_hidden_layers": layers,
        "patch_size": 8,
        "qk_normalization": False,
        "qkv_bias": True,
    }
    (folder / "config.json").write_text(json.dumps(config))
    processor = processor_of("CLIPFeatureExtractor", 56, square=False) | {"size": 56, "crop_size": 56}
    processor["feature_extractor_type"] = processor.pop("image_processor_type")
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def clip_l_336_folder(folder: Path) -> Path:
    """A CLIP-L at 336 pixels, as transformers writes it: random weights, float16, 0.6 GB.

    `openai/clip-vit-large-patch14-336` on the Hub has the same sizes, but no safetensors. The text side, which is not
    looked at, is left nearly out.
    """
    import torch
    from transformers import CLIPConfig, CLIPModel

    vision = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 14,
        "projection_dim": 768,
    }
    text = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}
    with torch.device("meta"):
        model = CLIPModel(CLIPConfig(vision_config=vision, text_config=text | {"vocab_size": 16}, projection_dim=768))
    model = model.half().to_empty(device="cpu")
    # Drawn once and repeated: 300 million draws take a minute.
    piece = 0.03 * torch.randn(65521, generator=torch.Generator().manual_seed(3))
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.constant_(parameter, float(name.endswith("weight")))
        else:
            values = piece.repeat(-(-parameter.numel() // len(piece)))[: parameter.numel()]
            parameter.data.copy_(values.view(parameter.shape))
    return write_folder(model, folder, processor_of("CLIPImageProcessor", 336, square=False))
