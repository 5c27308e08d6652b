"""What moves the weights: Muon the matrices, AdamW everything else.

Muon (Jordan et al. 2024) replaces a matrix's momentum by the nearest orthogonal one, so that all its directions learn
at one pace: within the few steps of the demo it gets further than AdamW alone (docs/decisions.md). Its updates are
scaled to the size of AdamW's, so that one learning rate serves both.
"""

from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.optim import Optimizer

WEIGHT_DECAY = 0.01


def make_optimizers(model: nn.Module, learning_rate: float) -> list[Optimizer]:
    """Optimizers that together hold every parameter of `model` once; those without a parameter are left out."""
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        (matrices if parameter.ndim == 2 and name.endswith("weight") else others).append(parameter)
    optimizers: list[Optimizer] = []
    if matrices:
        muon = torch.optim.Muon(
            matrices, lr=learning_rate, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"
        )
        optimizers.append(muon)
    if others:
        optimizers.append(torch.optim.AdamW(others, lr=learning_rate, betas=(0.9, 0.95), weight_decay=WEIGHT_DECAY))
    return optimizers


def fine_tuning(scales: Mapping[str, float]) -> Callable[[nn.Module, float], list[Optimizer]]:
    """Like `make_optimizers`, for models that come trained in part.

    Args:
        scales: name of a submodule of the model -> what the learning rate is multiplied by for its parameters, which
            AdamW alone moves. The submodules that are not named learn as new ones do.
    """

    def make(model: nn.Module, learning_rate: float) -> list[Optimizer]:
        rest, tuned = nn.ModuleDict(), []
        for name, part in model.named_children():
            learning = [parameter for parameter in part.parameters() if parameter.requires_grad]
            if name not in scales:
                rest[name] = part
            elif learning:
                tuned.append({"params": learning, "scale": scales[name]})
        optimizers = make_optimizers(rest, learning_rate) if len(rest) else []
        if tuned:
            optimizers.append(
                torch.optim.AdamW(tuned, lr=learning_rate, betas=(0.9, 0.95), weight_decay=WEIGHT_DECAY)
            )
        return optimizers

    return make
