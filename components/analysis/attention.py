"""Attention of a tower, seen while it is computed: a function registered with transformers' attention interface.

`output_attentions=True` would keep (L, B, H, T, T) numbers until the forward ends: 500 MB for one image in CLIP-L at
336 pixels. Here a layer's attention lives in pieces of a few megabytes, is averaged over its heads into a listener's
hands, and is gone before the next layer begins.

A is as in the paper's section 2.2.1: A[k, j] is how much token k (a query) takes from token j (a key); rows sum to one.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

NAME = "cotam_analysis"
PIECE = 1 << 19
"""Attention numbers computed at once: 2 MB, which stay in a processor's cache."""

Listener = Callable[[int, Tensor], None]
"""Takes a layer's index and its attention, averaged over heads: (B, T, T), float32."""

_heard: WeakKeyDictionary[nn.Module, Callable[[Tensor], None]] = WeakKeyDictionary()


def streaming_attention(
    module: nn.Module,
    query_BHTd: Tensor,
    key_BHTd: Tensor,
    value_BHTd: Tensor,
    attention_mask: Tensor | None = None,
    scaling: float | None = None,
    **_,
) -> tuple[Tensor, None]:
    """Attention as transformers' modules call it: (B, T, H, d), and no weights; the listener of `module` hears them.

    Every image is computed as if it were alone, up to the rounding of the library's matrix products.
    """
    images, heads, tokens, width = query_BHTd.shape
    scaling = width**-0.5 if scaling is None else scaling
    output_BTHd = query_BHTd.new_empty(images, tokens, heads, width)
    hear = _heard.get(module)
    several_B = max(1, PIECE // (heads * tokens * tokens))
    several_H = max(1, min(heads, PIECE // (tokens * tokens)))
    mean_BTT = query_BHTd.new_zeros(images, tokens, tokens, dtype=torch.float32) if hear else None
    for first in range(0, images, several_B):
        some = slice(first, first + several_B)
        for head in range(0, heads, several_H):
            those = slice(head, head + several_H)
            weights = torch.matmul(query_BHTd[some, those] * scaling, key_BHTd[some, those].transpose(-1, -2))
            if attention_mask is not None:
                weights += attention_mask[some] if len(attention_mask) > 1 else attention_mask
            weights = weights.softmax(-1, dtype=torch.float32)
            seen_BHTd = torch.matmul(weights.to(value_BHTd.dtype), value_BHTd[some, those])
            output_BTHd[some, :, those] = seen_BHTd.transpose(1, 2)
            if mean_BTT is not None:
                mean_BTT[some] += weights.sum(1)
    if hear:
        hear(mean_BTT.div_(heads))
    return output_BTHd, None


AttentionInterface.register(NAME, streaming_attention)


@contextmanager
def listening(model: PreTrainedModel, attentions: Sequence[nn.Module], listener: Listener) -> Iterator[None]:
    """While the block lasts, every forward of `model` tells `listener` of the attention of each layer, in order.

    Args:
        model: of transformers, written for its attention interface.
        attentions: the attention module of every layer.
        listener: what is told.
    """
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    for layer, module in enumerate(attentions):
        _heard[module] = lambda mean_BTT, layer=layer: listener(layer, mean_BTT)
    try:
        yield
    finally:
        for module in attentions:
            del _heard[module]
        model.set_attn_implementation(before)
