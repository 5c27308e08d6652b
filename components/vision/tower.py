"""A frozen CLIP vision tower in pieces: patch embedding, encoder, and the CLS attention of its shallow layers.

The adapter adds a residual to the patch embeddings (paper, section 3.3) and the guidance reads the attention of the
first layers only (section 3.2), so the tower is run in pieces rather than through the model's own `forward`. The
pieces are the modules of transformers' `CLIPVisionModel`, called in its order: with no residual the features equal
the model's bit for bit.

Shapes: B images, N patches (gh x gw of them, row by row), D tower width, L encoder layers.
"""

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import CLIPVisionModel

from components.errors import CotamError
from components.vision.geometry import Geometry


class Features(NamedTuple):
    """What the tower says of its patches, without the CLS token."""

    consumed_BND: Tensor
    """Hidden state that the MLLM reads (LLaVA-1.5: layer -2): F of L_high."""
    final_BND: Tensor | None
    """Hidden state after the last layer; None unless asked for."""


class ClipTower(nn.Module):
    """`CLIPVisionModel` with its parameters frozen; gradients still flow to the patches it is given.

    `feature_layer` counts hidden states as transformers does: 0 is the encoder's input, -1 the last layer's output.
    With `bf16` every forward runs under bfloat16 autocast and returns float32: for training, where speed matters
    more than the last digits.
    """

    def __init__(self, model: CLIPVisionModel, geometry: Geometry, feature_layer: int = -2, bf16: bool = False):
        super().__init__()
        config = model.config
        if geometry.output_size != (config.image_size, config.image_size):
            raise CotamError(
                f"The image processor makes {geometry.output_size} pixels but the tower takes {config.image_size} "
                "squared; fix size and crop_size in its preprocessor_config.json."
            )
        self.model = model.eval().requires_grad_(False)
        self.geometry = geometry
        self.layers = config.num_hidden_layers
        self.feature_layer = self._index(feature_layer)
        self.width = config.hidden_size
        self.patch_size = config.patch_size
        self.grid = (config.image_size // config.patch_size,) * 2
        self.bf16 = bf16

    def patch_embed(self, pixels_B3HW: Tensor) -> Tensor:
        """E(x): normalised pixels (as `geometry` makes them) -> patch embeddings (B, N, D), float32."""
        with self._precision(pixels_B3HW):
            patches_BDhw = self.model.embeddings.patch_embedding(pixels_B3HW.to(self.model.dtype))
        return patches_BDhw.float().flatten(2).transpose(1, 2)

    def forward_from_patches(self, patches_BND: Tensor, final: bool = False) -> Features:
        """Patch embeddings, possibly with an adapter's residual added -> token features (B, N, D), float32.

        The last layers are run only when `final` asks for them.
        """
        wanted = {self.feature_layer, self.layers} if final else {self.feature_layer}
        states = self.hidden_states(patches_BND, wanted)
        return Features(states[self.feature_layer][:, 1:], states[self.layers][:, 1:] if final else None)

    def hidden_states(self, patches_BND: Tensor, wanted: Collection[int]) -> dict[int, Tensor]:
        """The hidden states named in `wanted` (0 to L, or negative from the end), CLS first: {index: (B, 1 + N, D)}.

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
                hidden_BTD = self.model.encoder.layers[depth - 1](hidden_BTD, None)
            states |= {index: hidden_BTD.float() for index, at in depths.items() if at == depth}
        return states

    @torch.no_grad()
    def cls_attention(self, pixels_B3HW: Tensor, layers: Sequence[int] = (0, 1, 2)) -> Tensor:
        """How much CLS attends to each patch, averaged over heads and `layers` (paper, section 3.2): (B, gh, gw).

        Each layer's share on the patches is what its softmax gives them; CLS's attention to itself is left out, so
        the map sums to less than one. Of the deepest layer only the one attention row is computed.
        """
        layers = [self._index(layer, self.layers - 1) for layer in layers]
        maps_BN = []
        with self._precision(pixels_B3HW):
            hidden_BTD = self._embed(self.patch_embed(pixels_B3HW))
            for depth, layer in enumerate(self.model.encoder.layers[: max(layers) + 1]):
                if depth in layers:
                    maps_BN.append(cls_row(layer, hidden_BTD))
                if depth < max(layers):
                    hidden_BTD = layer(hidden_BTD, None)
        return torch.stack(maps_BN).mean(0).unflatten(-1, self.grid)

    def _embed(self, patches_BND: Tensor) -> Tensor:
        """Add CLS and positions and apply the pre-encoder norm: the encoder's input (B, 1 + N, D)."""
        embeddings = self.model.embeddings
        patches_BND = patches_BND.to(self.model.dtype)
        cls_B1D = embeddings.class_embedding.expand(len(patches_BND), 1, -1)
        tokens_BTD = torch.cat([cls_B1D, patches_BND], dim=1)
        return self.model.pre_layrnorm(tokens_BTD + embeddings.position_embedding(embeddings.position_ids))

    def _precision(self, tensor: Tensor) -> AbstractContextManager:
        return torch.autocast(tensor.device.type, torch.bfloat16) if self.bf16 else nullcontext()

    def _index(self, layer: int, last: int | None = None) -> int:
        """Resolve a negative index against `last` (default: hidden states, 0..L)."""
        last = self.layers if last is None else last
        if not -last - 1 <= layer <= last:
            raise CotamError(f"Layer {layer} is not in this tower: choose 0 to {last}.")
        return layer % (last + 1)


def cls_row(layer: nn.Module, hidden_BTD: Tensor) -> Tensor:
    """The CLS row of one encoder layer's attention to the patches, averaged over heads: (B, N), float32."""
    attention = layer.self_attn
    tokens_BTD = layer.layer_norm1(hidden_BTD)
    split = (-1, attention.head_dim)
    query_BHd = attention.q_proj(tokens_BTD[:, 0]).unflatten(-1, split)
    keys_BTHd = attention.k_proj(tokens_BTD).unflatten(-1, split)
    scores_BHT = torch.einsum("bhd,bthd->bht", query_BHd, keys_BTHd) * attention.scale
    return scores_BHT.float().softmax(-1).mean(1)[:, 1:]
