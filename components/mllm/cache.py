"""Keys and values of questions that share prefixes, in memory that already has room for what will be said.

transformers' own layers are joined to what is new at every step, which copies them whole; here a position is written
once. Only an answer that is longer than there is room for moves, to twice the room.
"""

import copy

import torch
from torch import Tensor
from transformers import Cache, DynamicLayer
from transformers.cache_utils import CacheLayerMixin


class Roomy(DynamicLayer):
    """A layer that starts as some rows of another one, with room for `room` positions more."""

    def __init__(self, prefixes: DynamicLayer, rows_B: Tensor, room: int):
        super().__init__()
        self.lazy_initialization(prefixes.keys, prefixes.values)
        self._held = [_with_room(part, rows_B, room) for part in (prefixes.keys, prefixes.values)]
        self._show(prefixes.keys.shape[-2])

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        """Write what is new behind what is there, and return all of it; (B, heads, T, d) each."""
        start = self.get_seq_length()
        stop = start + key_states.shape[-2]
        if stop > self._held[0].shape[-2]:
            every = torch.arange(len(key_states), device=key_states.device)
            self._held = [_with_room(part, every, max(stop - start, start)) for part in (self.keys, self.values)]
        for held, new in zip(self._held, (key_states, value_states), strict=True):
            held[:, :, start:stop] = new
        self._show(stop)
        return self.keys, self.values

    def _show(self, length: int) -> None:
        self.keys, self.values = (held[:, :, :length] for held in self._held)


def continued(prefixes: Cache, rows_B: Tensor, room: int) -> Cache:
    """The cache of a batch whose row i continues prefix `rows_B[i]`, with `room` positions to begin with.

    The prefixes stay as they are.
    """
    return Cache(layers=[_continued(layer, rows_B, room) for layer in prefixes.layers])


def _continued(layer: CacheLayerMixin, rows_B: Tensor, room: int) -> CacheLayerMixin:
    rows_B = rows_B.to(layer.keys.device)  # a layer's keys lie where the layer does, which need not be one device
    if type(layer) is DynamicLayer:
        return Roomy(layer, rows_B, room)
    layer = copy.copy(layer)  # one of a sliding window, which does not grow
    layer.batch_select_indices(rows_B)
    return layer


def _with_room(part_VHPd: Tensor, rows_B: Tensor, room: int) -> Tensor:
    _, heads, length, width = part_VHPd.shape
    held_BHTd = part_VHPd.new_empty(len(rows_B), heads, length + room, width)
    torch.index_select(part_VHPd, 0, rows_B, out=held_BHTd[:, :, :length])
    return held_BHTd
