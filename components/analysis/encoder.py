"""A tower's layers, computed so that each can be looked into: the model's own function in fewer passes over memory.

`output_attentions=True` would keep (L, B, H, T, T) numbers until the forward ends: 500 MB for one image in CLIP-L at
336 pixels. Here the attention of a head over some images lives in one buffer, is averaged into what a listener gets,
and makes room for the next. Beside large products a tower on a processor mostly waits for memory, so query, key and
value are one product, no head is copied, sums with the residual happen inside products, and CLIP's GELU is one pass.

A is as in the paper's section 2.2.1: A[k, j] is how much token k (a query) takes from token j (a key); rows sum to one.
"""

from collections.abc import Callable, Sequence
from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import QuickGELUActivation

from components.vision import Parts, Tower
from components.vision.quick_gelu import SLOPE

ROWS = 1100
"""Tokens that go through a layer together: what lies between its parts should stay near the processor."""

AttentionListener = Callable[[int, Tensor], None]
"""Takes a layer's index and its attention, averaged over heads: (B, T, T), float32."""
StateListener = Callable[[int, Tensor], None]
"""Takes a state's index and the state (B, T, D): 0 is what enters the encoder, l + 1 what leaves layer l."""


class Encoder:
    """The layers of a frozen tower in float32. The tower's query, key and value weights become views of one tensor."""

    def __init__(self, tower: Tower):
        self._tower = tower
        self.layers = [_Layer(tower.parts(block)) for block in tower.blocks]

    @torch.inference_mode()
    def __call__(self, pixels_B3HW: Tensor, on_attention: AttentionListener, on_state: StateListener) -> None:
        """Run the tower on normalised pixels; what the listeners are given is not written to again."""
        hidden_BTD = self._tower.hidden_states(self._tower.patch_embed(pixels_B3HW), [0])[0]
        on_state(0, hidden_BTD)
        for index, layer in enumerate(self.layers):
            hidden_BTD, mean_BTT = layer(hidden_BTD)
            on_attention(index, mean_BTT)
            on_state(index + 1, hidden_BTD)


class _Layer:
    """A pre-norm transformer layer, with layer scales or without."""

    def __init__(self, parts: Parts):
        self.norms, self.scales, self.out = parts.norms, parts.layer_scales, parts.out
        self.query_norm, self.key_norm = parts.query_norm, parts.key_norm
        self.heads, self.scaling = parts.heads, parts.scaling
        self.qkv = _fused([parts.query, parts.key, parts.value])
        self.fc1, self.fc2, self.activation = parts.fc1, parts.fc2, parts.activation
        self.slope = SLOPE if isinstance(self.activation, QuickGELUActivation) else 1.0

    def __call__(self, hidden_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """The state after the layer (B, T, D), and its attention averaged over heads (B, T, T)."""
        images, tokens, _ = hidden_BTD.shape
        after_BTD = torch.empty_like(hidden_BTD, memory_format=torch.contiguous_format)
        mean_BTT = hidden_BTD.new_empty(images, tokens, tokens)
        parts = min(images, ceil(images * tokens / ROWS))
        whole = (hidden_BTD.contiguous(), after_BTD, mean_BTT)
        for some in zip(*(tensor.tensor_split(parts) for tensor in whole), strict=True):
            self._run(*some)
        return after_BTD, mean_BTT

    def _run(self, hidden_BTD: Tensor, after_BTD: Tensor, mean_BTT: Tensor) -> None:
        """Of some images, into what is given."""
        hidden_RD, after_RD = hidden_BTD.flatten(0, 1), after_BTD.flatten(0, 1)  # R: rows, of all images
        context_RD = self._attend(_linear(self.qkv, self.norms[0](hidden_RD)), mean_BTT)
        _add(self.out, context_RD, self.scales[0], hidden_RD, after_RD)
        wide_RF = _linear(self.fc1, self.norms[1](after_RD), self.slope)
        wide_RF = F.silu(wide_RF, inplace=True) if self.slope != 1 else self.activation(wide_RF)
        _add(self.fc2, wide_RF, self.scales[1], after_RD, after_RD, 1 / self.slope)

    def _attend(self, qkv_RE: Tensor, mean_BTT: Tensor) -> Tensor:
        """What tokens take from each other, (R, H d); their attention goes to `mean_BTT`."""
        query_RE, key_RE, value_RE = qkv_RE.chunk(3, -1)
        states = (self.query_norm(query_RE), self.key_norm(key_RE), value_RE)
        # Views: a head of some images is a batch of matrices with gaps between their rows, which products can take.
        heads = [state.unflatten(0, mean_BTT.shape[:2]).unflatten(-1, (self.heads, -1)).unbind(2) for state in states]
        context_BTHd = qkv_RE.new_empty(*mean_BTT.shape[:2], self.heads, value_RE.shape[-1] // self.heads)
        scores_BTT, weights_BTT = torch.empty_like(mean_BTT), torch.empty_like(mean_BTT)
        for head, (query_BTd, key_BTd, value_BTd) in enumerate(zip(*heads, strict=True)):
            torch.baddbmm(scores_BTT, query_BTd, key_BTd.mT, beta=0, alpha=self.scaling, out=scores_BTT)
            torch.softmax(scores_BTT, -1, out=weights_BTT)
            context_BTHd[:, :, head] = torch.bmm(weights_BTT, value_BTd)
            if head:
                mean_BTT.add_(weights_BTT, alpha=1 / self.heads)
            else:
                torch.mul(weights_BTT, 1 / self.heads, out=mean_BTT)
        return context_BTHd.flatten(2).flatten(0, 1)


class _Fused(NamedTuple):
    weight: Tensor
    bias: Tensor | None


def _fused(linears: Sequence[nn.Linear]) -> _Fused:
    """One layer for several of the same input; their own weights become views of its weights."""

    def joined(name: str) -> Tensor | None:
        parameters = [getattr(linear, name) for linear in linears]
        if parameters[0] is None:
            return None
        whole = torch.cat([parameter.data for parameter in parameters])
        for parameter, view in zip(parameters, whole.split([len(one) for one in parameters]), strict=True):
            parameter.data = view
        return whole

    return _Fused(joined("weight"), joined("bias"))


def _linear(linear: nn.Linear | _Fused, x_RD: Tensor, factor: float = 1.0) -> Tensor:
    """The layer, times a factor."""
    if linear.bias is None:
        return torch.mm(x_RD, linear.weight.mT).mul_(factor)
    return torch.addmm(linear.bias, x_RD, linear.weight.mT, beta=factor, alpha=factor)


def _add(
    linear: nn.Linear, x_RD: Tensor, scale_D: Tensor | None, base_RD: Tensor, into_RD: Tensor, factor: float = 1.0
) -> None:
    """`into` becomes `base` plus, by layer scale, the layer of `factor` times x."""
    if scale_D is None:
        torch.addmm(base_RD, x_RD, linear.weight.mT, alpha=factor, out=into_RD).add_(linear.bias)
    else:
        made_RD = torch.addmm(linear.bias, x_RD, linear.weight.mT, alpha=factor)
        torch.addcmul(base_RD, made_RD, scale_D, out=into_RD)
