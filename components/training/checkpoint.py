"""Everything a killed training needs to go on as if nothing had happened, in one file that is whole or absent.

A checkpoint is a safetensors file: weights, optimizer moments and random states as tensors, the position as JSON in its
header. A resumed training ends with the same bits as an undisturbed one.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn
from torch.optim import Optimizer

from components.files import atomic_write


def save_checkpoint(path: Path, model: nn.Module, optimizers: Sequence[Optimizer], position: dict[str, Any]) -> None:
    """Replace the checkpoint at `path`.

    Args:
        model: its state dict is kept, without parameters that do not learn.
        optimizers: each of the model's parameters that learn is in one of them; tensors of their state are kept, their
            learning rates are not (the schedule knows them).
        position: where the training is; JSON values.
    """
    frozen = _frozen(model)
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items() if name not in frozen}
    for name, state in _optimizer_state(model, optimizers).items():
        tensors |= {f"optimizer.{name}.{slot}": tensor for slot, tensor in state.items()}
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    stored = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    atomic_write(path, save(stored, metadata={"position": json.dumps(position)}))


def load_checkpoint(path: Path, model: nn.Module, optimizers: Sequence[Optimizer]) -> dict[str, Any] | None:
    """Put `model`, `optimizers` and the random generators into the state at `path`; return the position.

    Returns:
        None, and nothing changed, where there is no checkpoint.
    """
    if not path.exists():
        return None
    with safe_open(path, framework="pt") as file:
        position = json.loads(file.metadata()["position"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    frozen, state = _frozen(model), model.state_dict()
    model.load_state_dict(_below("model.", tensors) | {name: state[name] for name in frozen})
    moments = _below("optimizer.", tensors)
    for name, parameter in _learning(model):
        # Copies: tensors that lie in the file's memory map are aligned otherwise, which can change sums.
        state = _below(f"{name}.", moments)
        _owner(parameter, optimizers).state[parameter] = {
            slot: tensor.clone() if tensor.ndim == 0 else tensor.to(parameter.device, copy=True)
            for slot, tensor in state.items()
        }
    torch.set_rng_state(tensors["random.cpu"].clone())
    if torch.cuda.is_available() and "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"].clone())
    return position


def _optimizer_state(model: nn.Module, optimizers: Sequence[Optimizer]) -> dict[str, dict[str, torch.Tensor]]:
    return {
        name: dict(owner.state[parameter])
        for name, parameter in _learning(model)
        if parameter in (owner := _owner(parameter, optimizers)).state
    }


def _learning(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def _frozen(model: nn.Module) -> set[str]:
    """Names of the parameters that do not learn; a tied one has several."""
    parameters = model.named_parameters(remove_duplicate=False)
    return {name for name, parameter in parameters if not parameter.requires_grad}


def _owner(parameter: nn.Parameter, optimizers: Sequence[Optimizer]) -> Optimizer:
    return next(
        optimizer
        for optimizer in optimizers
        if any(parameter is held for group in optimizer.param_groups for held in group["params"])
    )


def _below(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
