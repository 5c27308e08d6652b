"""Weights that a method has changed in an MLLM, kept apart from it: a LoRA as `peft` writes it, or whole tensors."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn

from components.errors import CotamError
from components.files import atomic_dir, read_json, write_json
from components.mllm.mllm import Mllm
from components.weights import CONFIG, load_safetensors, save_safetensors

LORA_CONFIG, LORA_TENSORS = "adapter_config.json", "adapter_model.safetensors"  # peft's names
_MATRICES = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


def add_lora(model: nn.Module, rank: int) -> nn.Module:
    """Give every matrix of an MLLM's language model a low-rank update, and let it and the projector learn.

    W + (alpha / rank) B A with alpha = 2 rank; B starts at zero (Hu et al. 2022). The model is changed in place; what
    is returned belongs to `save_lora`.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules=_MATRICES, modules_to_save=["multi_modal_projector"]
    )
    return get_peft_model(model, config)


def save_lora(tuned: nn.Module, folder: Path) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors`."""
    with atomic_dir(folder) as temporary:
        tuned.save_pretrained(temporary, safe_serialization=True)
        (temporary / "README.md").unlink(missing_ok=True)  # an empty model card
        config = read_json(temporary / LORA_CONFIG)
        # Where the MLLM lay says nothing; which one it was is the run's own record.
        write_json(temporary / LORA_CONFIG, config | {"base_model_name_or_path": None})


def save_full(model: nn.Module, folder: Path) -> None:
    """Write every tensor of the model that learned, float16."""
    learned = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    save_safetensors(folder, learned, {"kind": "mllm"}, half=True)


def lay_over(mllm: Mllm, folder: Path) -> None:
    """Change an MLLM to what `folder` holds, in place: a LoRA is added to its matrices, tensors replace its own.

    Raises:
        CotamError: the folder holds neither, is damaged, or belongs to another MLLM.
    """
    if (folder / LORA_CONFIG).exists():
        _add_lora(mllm, folder)
        return
    tensors, config = load_safetensors(folder)
    if config.get("kind") != "mllm":
        raise CotamError(f"{folder / CONFIG} is not of an MLLM's changed weights; train the method again.")
    own = dict(mllm.model.named_parameters())
    for name, tensor in tensors.items():
        if name not in own or own[name].shape != tensor.shape:
            raise CotamError(f"{folder} was made for another MLLM (its {name} does not fit); train the method for it.")
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def _add_lora(mllm: Mllm, folder: Path) -> None:
    from peft import PeftModel

    if not (folder / LORA_TENSORS).exists():  # peft would look for a pickle
        raise CotamError(f"{folder / LORA_TENSORS} does not exist; train the method again.")
    try:
        tuned = PeftModel.from_pretrained(mllm.model, str(folder))
    except (RuntimeError, ValueError, KeyError, TypeError, OSError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise CotamError(f"{folder} was made for another MLLM, or is damaged ({reason}).") from None
    tuned.merge_and_unload()
    mllm.model.requires_grad_(False)
