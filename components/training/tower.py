"""A frozen tower made fast to learn through on a processor: the same function, in fewer passes over memory.

Small towers on processors wait for memory, not for arithmetic. Together the two changes save an eighth of a training
step of the micro models (docs/decisions.md).
"""

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.activations import QuickGELUActivation

from components.vision import Tower
from components.vision.quick_gelu import SLOPE


def training_tower(tower: Tower) -> Tower:
    """The tower on this process's device; on a processor its attention and its activations are exchanged.

    The tower given is changed, to the same function but for rounding.
    """
    if torch.cuda.is_available():
        return tower.to("cuda")
    # Plain matrix products in bfloat16 are more than twice as fast there as the fused attention.
    tower.model.set_attn_implementation(ATTENTION)
    for module in tower.blocks.modules():
        if isinstance(getattr(module, "activation_fn", None), QuickGELUActivation):  # CLIP's MLP
            _use_silu(module)
    return tower


def _use_silu(mlp: nn.Module) -> None:
    """Put the factors of CLIP's GELU into the weights beside it."""
    with torch.no_grad():
        mlp.fc1.weight.mul_(SLOPE)
        mlp.fc1.bias.mul_(SLOPE)
        mlp.fc2.weight.div_(SLOPE)
    mlp.activation_fn = nn.SiLU()


def _attention(
    module: nn.Module,
    query_BHTd: Tensor,
    key_BHTd: Tensor,
    value_BHTd: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    **_,
) -> tuple[Tensor, None]:
    """Attention without mask whose softmax stays in the products' type; transformers' own one makes float32 of it."""
    weights_BHTT = torch.matmul(query_BHTd * scaling, key_BHTd.transpose(-1, -2)).softmax(-1)
    return torch.matmul(weights_BHTT, value_BHTd).transpose(1, 2).contiguous(), None


ATTENTION = "plain"
AttentionInterface.register(ATTENTION, _attention)
