"""Opening a vision tower by the `model_type` of its configuration: a CLIP, or the tower inside an MLLM.

A family is one function from a model's folder to a tower. The tower of an MLLM is read out of the MLLM's own files
(its language model is not loaded), with the feature layer that its configuration names.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoConfig, CLIPModel, CLIPVisionModel

from components.errors import CotamError
from components.vision.geometry import Geometry
from components.vision.tower import ClipTower


def clip_tower(folder: Path) -> ClipTower:
    """The image side of a `CLIPModel`; its features are taken where LLaVA-1.5 takes them."""
    return ClipTower(
        CLIPModel.from_pretrained(folder, dtype=torch.float32).vision_model, Geometry.from_pretrained(folder)
    )


def clip_vision_tower(folder: Path) -> ClipTower:
    """A `CLIPVisionModel` that has no text side."""
    return ClipTower(CLIPVisionModel.from_pretrained(folder, dtype=torch.float32), Geometry.from_pretrained(folder))


def llava_tower(folder: Path) -> ClipTower:
    """The CLIP inside a LLaVA."""
    config = AutoConfig.from_pretrained(folder)
    if config.vision_config.model_type != "clip_vision_model":
        raise CotamError(f"{folder} sees through a {config.vision_config.model_type!r}, not through a CLIP.")
    model = CLIPVisionModel(config.vision_config)
    model.load_state_dict(_tower_tensors(folder))
    return ClipTower(model.float(), Geometry.from_pretrained(folder), feature_layer=config.vision_feature_layer)


TOWERS: dict[str, Callable[[Path], ClipTower]] = {
    "clip": clip_tower,
    "clip_vision_model": clip_vision_tower,
    "llava": llava_tower,
}


def load_tower(path_or_name: Path | str, bf16: bool = False) -> ClipTower:
    """Open the frozen tower in a folder (or of a Hugging Face name), in float32 on the CPU; `bf16`: see `ClipTower`.

    Raises CotamError when there is no such model, its files are damaged, or its family is not in `TOWERS`.
    """
    from components.weights import resolve

    folder = resolve(path_or_name)
    model_type = model_type_of(folder)
    if model_type not in TOWERS:
        raise CotamError(f"{folder} holds a {model_type!r} model; a vision tower must be one of {', '.join(TOWERS)}.")
    try:
        tower = TOWERS[model_type](folder)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CotamError(f"The weights in {folder} are missing or damaged ({error}); fetch them again.") from error
    tower.bf16 = bf16
    return tower


def model_type_of(folder: Path) -> str:
    """The `model_type` in a Hugging Face model's config.json. Raises CotamError when there is none."""
    try:
        return AutoConfig.from_pretrained(folder).model_type
    except (OSError, ValueError) as error:
        raise CotamError(f"{folder} is not a Hugging Face model: its config.json is missing or unreadable.") from error


def _tower_tensors(folder: Path) -> dict[str, Tensor]:
    """The tensors below `vision_tower` in an MLLM's safetensors files, named as in the tower itself."""
    tensors = {}
    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 (not a mapping)
                _, found, inner = name.partition("vision_tower.")
                if found:
                    # Checkpoints from before transformers 5 have one level more.
                    tensors[inner.removeprefix("vision_model.")] = weights.get_tensor(name)
    if not tensors:
        raise CotamError(f"{folder} has no safetensors file with a vision tower in it.")
    return tensors
