"""Reading the weights of a tower, all of them: transformers makes up what a file lacks, and only warns."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel

from components.errors import CotamError

# Of a two-tower model, or of a pooling head, neither of which is run.
_UNUSED = ("text_model.", "logit_", "head.", "vision_model.head.", "text_projection.", "visual_projection.")


def whole(kind: type[PreTrainedModel], folder: Path) -> PreTrainedModel:
    """A model of transformers in float32, with all of its tower's weights.

    Raises:
        CotamError: some are not there.
    """
    model, told = kind.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    if missing := sorted(name for name in told["missing_keys"] if not name.startswith(_UNUSED)):
        raise CotamError(f"{folder} has no weights for {missing[0]} of its tower; fetch them again.")
    return model


def filled(model: PreTrainedModel, tensors: Mapping[str, Tensor], folder: Path) -> PreTrainedModel:
    """The model with these weights, in float32.

    Raises:
        CotamError: some are not there.
    """
    missing = [name for name in model.load_state_dict(tensors, strict=False).missing_keys if "head." not in name]
    if missing:
        raise CotamError(f"{folder} has no weights for {missing[0]} of its vision tower; fetch them again.")
    return model.float()


def tensors_of(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Every tensor in a model's safetensors files, however many these are, by name."""
    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 (not a mapping)
                yield name, weights.get_tensor(name)


def tower_tensors(folder: Path) -> dict[str, Tensor]:
    """The tensors below `vision_tower` in an MLLM's files, named as in the tower itself."""
    tensors = {}
    for name, tensor in tensors_of(folder):
        _, found, inner = name.partition("vision_tower.")
        if found:
            # Checkpoints from before transformers 5 have one level more.
            tensors[inner.removeprefix("vision_model.")] = tensor
    if not tensors:
        raise CotamError(f"{folder} has no safetensors file with a vision tower in it.")
    return tensors
