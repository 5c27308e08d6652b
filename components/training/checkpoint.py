"""Everything a killed training needs to go on as if nothing had happened, in one file that is whole or absent.

A checkpoint is a safetensors file: weights, optimizer moments and random states as tensors, the position as JSON in its
header. A resumed training ends with the same bits as an undisturbed one. Of several processes the first writes and
reads it; the others, whose disks may be elsewhere, get its bytes.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import nn
from torch.optim import Optimizer

from components.errors import CotamError
from components.files import atomic_write

Random = dict[str, torch.Tensor]
"""Generator -> its states, uint8 (processes, bytes)."""


def random_states() -> Random:
    """The states of this process's generators."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return {name: state[None] for name, state in states.items()}


def save_checkpoint(
    path: Path,
    model: nn.Module,
    optimizers: Sequence[Optimizer],
    position: dict[str, Any],
    random: Random | None = None,
) -> None:
    """Replace the checkpoint at `path`.

    Args:
        model: its state dict is kept, without parameters that do not learn.
        optimizers: each of the model's parameters that learn is in one of them; tensors of their state are kept, their
            learning rates are not (the schedule knows them).
        position: where the training is; JSON values.
        random: the states of all processes' generators; of this one alone when None.

    Raises:
        CotamError: there is no room for it; the one before is as it was.
    """
    frozen = _frozen(model)
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items() if name not in frozen}
    for name, state in _optimizer_state(model, optimizers).items():
        tensors |= {f"optimizer.{name}.{slot}": tensor for slot, tensor in state.items()}
    tensors |= {f"random.{name}": states for name, states in (random or random_states()).items()}
    stored = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    try:
        atomic_write(path, save(stored, metadata={"position": json.dumps(position)}))
    except OSError as error:
        raise CotamError(
            f"The checkpoint {path} cannot be written ({error.strerror}); free some room and run the same again, which "
            "goes on from the last one."
        ) from None


def load_checkpoint(
    content: bytes, model: nn.Module, optimizers: Sequence[Optimizer], process: int = 0
) -> dict[str, Any] | None:
    """Put `model`, `optimizers` and the random generators into the state of a checkpoint; return the position.

    Args:
        content: of the file; empty where there is none.
        process: which one of several this is.

    Returns:
        None, and nothing changed, where there is no checkpoint.
    """
    if not content:
        return None
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    tensors = load(content)
    frozen, state = _frozen(model), model.state_dict()
    model.load_state_dict(_below("model.", tensors) | {name: state[name] for name in frozen})
    moments = _below("optimizer.", tensors)
    for name, parameter in _learning(model):
        # Copies: tensors that lie in the file's bytes are aligned otherwise, which can change sums.
        state = _below(f"{name}.", moments)
        _owner(parameter, optimizers).state[parameter] = {
            slot: tensor.clone() if tensor.ndim == 0 else tensor.to(parameter.device, copy=True)
            for slot, tensor in state.items()
        }
    random = {name: states[process % len(states)].clone() for name, states in _below("random.", tensors).items()}
    torch.set_rng_state(random["cpu"])
    if torch.cuda.is_available() and "cuda" in random:
        torch.cuda.set_rng_state(random["cuda"])
    return json.loads(header["__metadata__"]["position"])


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
