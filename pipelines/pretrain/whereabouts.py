"""Losses by which a language model learns where things are, before it is asked to compare two places.

Which way something moves, what came first and on which side something is are answers about two places. From answers
alone a small model learns neither places nor comparing. So it is told both steps to a place: the tokens of an image
must know where in it and in which frame they are, and the word that names a shape must look, with one head, at where
that is first, with another at where it is last, and know after that layer both places and which way it moves: early
enough for the question mark to ask, for options to be compared with that, and for the answer to ask these. What reads
the states for this is thrown away after training.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPast

from components.evaluation.clips import FRAMES
from pipelines.pretrain.lessons import PLACES, WAYS
from pipelines.pretrain.tiles import GRID, IGNORED

LAYER, HEADS = 2, 2
"""Of the language model, counted from 0: so many of its first heads look."""
WEIGHTS = {"cells": 0.5, "looking": 0.5, "places": 1.0, "ways": 1.0}
"""The losses' names and weights, beside that of the answers, which is 1."""
_WAY = {"way": len(WAYS)}
CELL = {"frame": FRAMES, "row": GRID, "column": GRID}
"""What the tokens of an image must know of themselves, with how many values."""


class Whereabouts(nn.Module):
    """The losses, of a language model of `width` that gives its hidden states and its attention."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.cell, self.place = nn.Linear(width, sum(CELL.values())), nn.Linear(width, sum(PLACES.values()))
        self.way = nn.Linear(width, len(WAYS))

    def forward(self, read: BaseModelOutputWithPast, where_B6L: Tensor, cells_Frck: Tensor) -> Tensor:
        """The losses in the order of `WEIGHTS`, float32 (4,), in nats; of pictures and words that ask nothing, 0.

        Args:
            read: of a sequence whose last L tokens are the questions', with hidden states and attention.
            where_B6L: int64; `PLACES` and the way of the shapes that these tokens name, IGNORED where they name none.
            cells_Frck: int64; where in the sequence the k tokens stand that show the cell at row r and column c.
        """
        length, named_BL = where_B6L.shape[-1], where_B6L[:, 0] != IGNORED
        places_N5, ways_N1 = where_B6L.transpose(1, 2)[named_BL].split([len(PLACES), 1], -1)
        looked_B2LS = read.attentions[LAYER][:, :HEADS, -length:]
        known_NE = self.norm(read.hidden_states[LAYER + 1][:, -length:][named_BL])
        return torch.stack(
            [
                self._cells(read.hidden_states[LAYER][:, cells_Frck]),
                looking(looked_B2LS.transpose(1, 2)[named_BL], places_N5, cells_Frck),
                _read(self.place(known_NE), places_N5, PLACES),
                _read(self.way(known_NE), ways_N1, _WAY),
            ]
        )

    def _cells(self, states_BFrckE: Tensor) -> Tensor:
        """How little the tokens of an image know of where in it they are."""
        count, frames, rows, columns, tokens, _ = states_BFrckE.shape
        steps = (torch.arange(side, device=states_BFrckE.device) for side in (frames, rows, columns))
        frame, row, column = torch.cartesian_prod(*steps).T
        due_N3 = torch.stack([frame, row * GRID // rows, column * GRID // columns], 1)
        due_N3 = due_N3.repeat_interleave(tokens, 0).repeat(count, 1)
        return _read(self.cell(self.norm(states_BFrckE)).flatten(0, -2), due_N3, CELL)


def looking(looked_N2S: Tensor, places_N5: Tensor, cells_Frck: Tensor) -> Tensor:
    """How little words that name a shape look at where it is first, with one head, and last, with the other: in nats.

    Of what a word does not look at at all the gradient is as large as any: hence the logarithm so far down.
    """
    frame, *ends = places_N5.T
    columns, rows = (torch.stack(pair, 1) * cells_Frck.shape[1] // GRID for pair in (ends[0::2], ends[1::2]))
    frames = torch.stack([frame, torch.full_like(frame, len(cells_Frck) - 1)], 1)
    share = looked_N2S.float().gather(2, cells_Frck[frames, rows, columns]).sum(-1)
    return -share.clamp(min=1e-20).log().sum() / max(share.numel(), 1)


def _read(scores_NC: Tensor, due_Nk: Tensor, classes: dict[str, int]) -> Tensor:
    """The mean cross-entropy of all; 0 where there is nothing to read."""
    parts = zip(scores_NC.float().split(list(classes.values()), -1), due_Nk.unbind(-1), strict=True)
    return torch.stack([F.cross_entropy(*part, reduction="sum") for part in parts]).mean() / max(len(due_Nk), 1)
