"""Reading the weights of a tower, all of them: transformers makes up what a file lacks, and only warns."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel

from components.errors import CotamError

_UNUSED = ("text_model.", "logit_", "head.", "vision_model.head.", "pooler.", "text_projection.", "visual_projection.")


def is_run(name: str) -> bool:
    """Whether a tensor of this name takes part: the other half of a two-tower model and a pooling head do not."""
    return not name.startswith(_UNUSED)


def whole(kind: type[PreTrainedModel], folder: Path) -> PreTrainedModel:
    """A model of transformers in float32, with all of its tower's weights.

    Raises:
        CotamError: some are not there.
    """
    model, told = kind.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True
    )
    if missing := sorted(filter(is_run, told["missing_keys"])):
        raise CotamError(f"{folder} has no weights for {missing[0]} of its tower; fetch them again.")
    return model


def filled(model: PreTrainedModel, tensors: Mapping[str, Tensor], folder: Path) -> PreTrainedModel:
    """The model with these weights, in float32.

    Raises:
        CotamError: some are not there.
    """
    if missing := list(filter(is_run, model.load_state_dict(tensors, strict=False).missing_keys)):
        raise CotamError(f"{folder} has no weights for {missing[0]} of its vision tower; fetch them again.")
    return model.float()


def tensors_of(folder: Path, wanted: Callable[[str], bool] = lambda name: True) -> Iterator[tuple[str, Tensor]]:
    """The wanted tensors in a model's safetensors files, however many these are, by name; no other is read."""
    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            for name in filter(wanted, weights.keys()):
                yield name, weights.get_tensor(name)


def tower_tensors(folder: Path) -> dict[str, Tensor]:
    """The tensors below `vision_tower` in an MLLM's files, named as in the tower itself."""
    tensors = {
        # Checkpoints from before transformers 5 have one level more.
        name.partition("vision_tower.")[2].removeprefix("vision_model."): tensor
        for name, tensor in tensors_of(folder, lambda name: "vision_tower." in name)
    }
    if not tensors:
        raise CotamError(f"{folder} has no safetensors file with a vision tower in it.")
    return tensors
