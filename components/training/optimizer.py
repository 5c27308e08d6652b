"""What moves the weights: Muon the matrices, AdamW everything else.

Muon (Jordan et al. 2024) replaces a matrix's momentum by the nearest orthogonal one, so that all its directions learn
at one pace: within the few steps of the demo it gets further than AdamW alone (docs/decisions.md). Its updates are
scaled to the size of AdamW's, so that one learning rate serves both.
"""

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
