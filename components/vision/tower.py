"""A frozen vision tower in pieces: patch embedding, encoder, and the attention of its shallow layers.

The adapter adds a residual to the patch embeddings (paper, section 3.3) and the guidance reads the attention of the
first layers only (section 3.2), so a tower is run in pieces rather than through the model's own `forward`. The
pieces are the modules of transformers' model, called in its order: with no residual the features equal the model's
bit for bit.

`Tower` is what all families share. A family (`clip.py`, `siglip.py`, `internvit.py`) says how its encoder's input is
made and what its modules are called: `blocks` and, of each, `parts`.

Shapes: B images, N patches (gh x gw of them, row by row), T tokens (N, and CLS where there is one), D tower width,
L encoder layers, H heads of d features.
"""

import hashlib
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from components.errors import CotamError
from components.vision.geometry import Geometry
from components.vision.reading import is_run, whole

_BITS = {
    torch.float64: torch.int64,
    torch.float32: torch.int32,
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
}
"""Integers whose sign is the float's of the same bits."""


class Features(NamedTuple):
    """What the tower says of its patches, without the CLS token."""

    consumed_BND: Tensor
    """Hidden state that the MLLM reads (LLaVA-1.5: layer -2): F of L_high."""
    final_BND: Tensor | None
    """Hidden state after the last layer; None unless asked for."""


class Parts(NamedTuple):
    """What an encoder layer is made of, whatever its family calls it.

        x + scale_1 out(attention(norm_1(x)))   and then   x + scale_2 fc2(activation(fc1(norm_2(x))))
    """

    norms: tuple[nn.Module, nn.Module]
    """Before the attention, and before the MLP."""
    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    out: nn.Linear
    heads: int
    scaling: float
    """Of the product of a query and a key."""
    fc1: nn.Linear
    fc2: nn.Linear
    activation: nn.Module
    query_norm: nn.Module = nn.Identity()
    key_norm: nn.Module = nn.Identity()
    """Of queries and keys, before they are cut into heads."""
    layer_scales: tuple[Tensor | None, Tensor | None] = (None, None)
    """(D,) each; None: one."""


class Tower(nn.Module):
    """A model of transformers with its parameters frozen; gradients still flow to the patches it is given.

    `feature_layer` counts hidden states as transformers does: 0 is the encoder's input, -1 the last layer's output;
    None is where this family's MLLMs read. With `bf16` every forward runs under bfloat16 autocast and returns float32:
    for training, where speed matters more than the last digits.
    """

    model_class: ClassVar[type[PreTrainedModel]]
    cls: ClassVar[int] = 1
    """How many tokens stand before the patches."""
    consumed: ClassVar[int] = -1
    """Where the MLLMs of this family read, unless they say otherwise."""

    def __init__(
        self, model: PreTrainedModel, geometry: Geometry, feature_layer: int | None = None, bf16: bool = False
    ):
        super().__init__()
        config = model.config
        (height, width), (patch, _) = _pair(config.image_size), _pair(config.patch_size)
        if geometry.output_size != (height, width):
            raise CotamError(
                f"The image processor makes {geometry.output_size} pixels but the tower takes {height} x {width}; "
                "fix size and crop_size in its preprocessor_config.json."
            )
        self.model = model.eval().requires_grad_(False)
        self.geometry = geometry
        self.layers = config.num_hidden_layers
        self.feature_layer = self._index(self.consumed if feature_layer is None else feature_layer)
        self.width = config.hidden_size
        self.patch_size = patch
        self.grid = (height // patch, width // patch)
        self.bf16 = bf16

    @classmethod
    def open(cls, folder: Path) -> "Tower":
        """Read a folder that holds this model alone."""
        return cls(whole(cls.model_class, folder), Geometry.from_pretrained(folder))

    @cached_property
    def identity(self) -> str | None:
        """Eight hexadecimal digits that name the tower by its weights, wherever it lies and in whatever type it is.

        They are of the weights' signs, the one thing that rounding to another type never changes (a hash of rounded
        numbers would, as float16 cuts off small ones); among thousands of weights no two trained towers agree in all.
        None where the weights cannot be read: they are not all in memory, or quantised.
        """
        digest = hashlib.sha256()
        for name, weight in self.model.named_parameters():
            if not is_run(name):
                continue
            if weight.is_meta or weight.dtype not in _BITS:
                return None
            # In NumPy: who forks later must not have computed with torch.
            signs = weight.detach().cpu().view(_BITS[weight.dtype]).numpy() < 0
            digest.update(str(signs.shape).encode() + np.packbits(signs).tobytes())
        return digest.hexdigest()[:8]

    @property
    def blocks(self) -> nn.ModuleList:
        """The encoder's layers, in order."""
        return self.model.encoder.layers

    @staticmethod
    def parts(block: nn.Module) -> Parts:
        """What one of `blocks` is made of; here with the names that CLIP and SigLIP give."""
        attention, mlp = block.self_attn, block.mlp
        return Parts(
            norms=(block.layer_norm1, block.layer_norm2),
            query=attention.q_proj,
            key=attention.k_proj,
            value=attention.v_proj,
            out=attention.out_proj,
            heads=attention.num_heads,
            scaling=attention.scale,
            fc1=mlp.fc1,
            fc2=mlp.fc2,
            activation=mlp.activation_fn,
        )

    def patch_embed(self, pixels_B3HW: Tensor) -> Tensor:
        """E(x): normalised pixels (as `geometry` makes them) -> patch embeddings (B, N, D), float32."""
        with self._precision(pixels_B3HW):
            patches_BDhw = self._convolution(pixels_B3HW.to(self.model.dtype))
        return patches_BDhw.float().flatten(2).transpose(1, 2)

    def forward_from_patches(self, patches_BND: Tensor, final: bool = False) -> Features:
        """Patch embeddings, possibly with an adapter's residual added -> token features (B, N, D), float32.

        The last layers are run only when `final` asks for them.
        """
        wanted = {self.feature_layer, self.layers} if final else {self.feature_layer}
        states = self.hidden_states(patches_BND, wanted)
        last_BND = states[self.layers][:, self.cls :] if final else None
        return Features(states[self.feature_layer][:, self.cls :], last_BND)

    def hidden_states(self, patches_BND: Tensor, wanted: Collection[int]) -> dict[int, Tensor]:
        """The hidden states named in `wanted` (0 to L, or negative from the end), CLS first: {index: (B, T, D)}.

        Runs no layer beyond the deepest one wanted.
        """
        with self._precision(patches_BND):
            return self._run(self._embed(patches_BND), 0, wanted)

    def states_from(self, tokens_BTD: Tensor, layer: int, wanted: Collection[int]) -> dict[int, Tensor]:
        """The same where the tower is entered further up: `tokens_BTD`, CLS first, stand for hidden state `layer`.

        Raises:
            CotamError: the tower does not have that many layers, or a state below `layer` is wanted.
        """
        layer = self._index(layer)
        if any(self._index(index) < layer for index in wanted):
            raise CotamError(f"Who enters this tower at layer {layer} cannot have its layers {list(wanted)}.")
        with self._precision(tokens_BTD):
            return self._run(tokens_BTD.to(self.model.dtype), layer, wanted)

    def _run(self, hidden_BTD: Tensor, first: int, wanted: Collection[int]) -> dict[int, Tensor]:
        """The hidden states in `wanted`, given number `first` of them."""
        depths = {index: self._index(index) for index in wanted}
        states: dict[int, Tensor] = {}
        for depth in range(first, max(depths.values()) + 1):
            if depth > first:
                hidden_BTD = self._layer(self.blocks[depth - 1], hidden_BTD)
            told_BTD = self._told(depth, hidden_BTD)
            states |= {index: told_BTD.float() for index, at in depths.items() if at == depth}
        return states

    def cls_attention(self, pixels_B3HW: Tensor, layers: Sequence[int] = (0, 1, 2)) -> Tensor:
        """How much CLS attends to each patch, averaged over heads and `layers` (paper, section 3.2): (B, gh, gw).

        Each layer's share on the patches is what its softmax gives them; CLS's attention to itself is left out, so
        the map sums to less than one. Of the deepest layer only the one attention row is computed.

        Raises CotamError when the tower has no CLS token, or no such layer.
        """
        if not self.cls:
            raise CotamError("This tower has no CLS token, whose attention could guide; name a CLIP.")
        return self._shallow(pixels_B3HW, layers, self._cls_row)

    def received_attention(self, pixels_B3HW: Tensor, layers: Sequence[int] = (0, 1, 2)) -> Tensor:
        """How much attention each patch draws from all tokens, averaged over these, heads and layers: (B, gh, gw)."""
        return self._shallow(pixels_B3HW, layers, self._received)

    def attention_map(self, pixels_B3HW: Tensor, layers: Sequence[int] = (0, 1, 2)) -> Tensor:
        """What guides: CLS's attention or, in a tower without CLS (an ablation), what each patch receives."""
        return (self.cls_attention if self.cls else self.received_attention)(pixels_B3HW, layers)

    @torch.no_grad()
    def _shallow(
        self, pixels_B3HW: Tensor, layers: Sequence[int], look: Callable[[nn.Module, Tensor], Tensor]
    ) -> Tensor:
        layers = [self._index(layer, self.layers - 1) for layer in layers]
        pixels_B3HW = pixels_B3HW.to(next(self.parameters()).device)
        maps_BN = []
        with self._precision(pixels_B3HW):
            hidden_BTD = self._embed(self.patch_embed(pixels_B3HW))
            for depth, block in enumerate(self.blocks[: max(layers) + 1]):
                if depth in layers:
                    maps_BN.append(look(block, hidden_BTD))
                if depth < max(layers):
                    hidden_BTD = self._layer(block, hidden_BTD)
        return torch.stack(maps_BN).mean(0).unflatten(-1, self.grid)

    def _cls_row(self, block: nn.Module, hidden_BTD: Tensor) -> Tensor:
        return _row(self.parts(block), hidden_BTD)

    def _received(self, block: nn.Module, hidden_BTD: Tensor) -> Tensor:
        parts = self.parts(block)
        tokens_BTD = parts.norms[0](hidden_BTD)
        query_BTHd, key_BTHd = _queries(parts, tokens_BTD), _keys(parts, tokens_BTD)
        drawn_BT = 0
        for query_BTd, key_BTd in zip(query_BTHd.unbind(2), key_BTHd.unbind(2), strict=True):  # (B, T, T) at a time
            scores_BTT = query_BTd @ key_BTd.transpose(1, 2) * parts.scaling
            drawn_BT = drawn_BT + scores_BTT.float().softmax(-1).mean(1)
        return drawn_BT[:, self.cls :] / parts.heads

    @property
    def _convolution(self) -> nn.Module:
        """What embeds the patches: pixels -> (B, D, gh, gw)."""
        return self.model.embeddings.patch_embedding

    def _embed(self, patches_BND: Tensor) -> Tensor:
        """The encoder's input (B, T, D): patches with all that the model adds to them."""
        raise NotImplementedError

    def _layer(self, block: nn.Module, hidden_BTD: Tensor) -> Tensor:
        return block(hidden_BTD, None)

    def _told(self, depth: int, hidden_BTD: Tensor) -> Tensor:
        """What the MLLM reads where it asks for the state at `depth`."""
        return hidden_BTD

    def _precision(self, tensor: Tensor) -> AbstractContextManager:
        return torch.autocast(tensor.device.type, torch.bfloat16) if self.bf16 else nullcontext()

    def _index(self, layer: int, last: int | None = None) -> int:
        """Resolve a negative index against `last` (default: hidden states, 0..L)."""
        last = self.layers if last is None else last
        if not -last - 1 <= layer <= last:
            raise CotamError(f"Layer {layer} is not in this tower: choose 0 to {last}.")
        return layer % (last + 1)


def cls_row(layer: nn.Module, hidden_BTD: Tensor) -> Tensor:
    """The CLS row of one CLIP layer's attention to the patches, averaged over heads: (B, N), float32."""
    return _row(Tower.parts(layer), hidden_BTD)


def _row(parts: Parts, hidden_BTD: Tensor) -> Tensor:
    tokens_BTD = parts.norms[0](hidden_BTD)
    query_BHd, keys_BTHd = _queries(parts, tokens_BTD[:, 0]), _keys(parts, tokens_BTD)
    scores_BHT = torch.einsum("bhd,bthd->bht", query_BHd, keys_BTHd) * parts.scaling
    return scores_BHT.float().softmax(-1).mean(1)[:, 1:]


def _queries(parts: Parts, tokens: Tensor) -> Tensor:
    """Of every head: (..., D) -> (..., H, d)."""
    return parts.query_norm(parts.query(tokens)).unflatten(-1, (parts.heads, -1))


def _keys(parts: Parts, tokens: Tensor) -> Tensor:
    return parts.key_norm(parts.key(tokens)).unflatten(-1, (parts.heads, -1))


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
