"""Several questions behind one image in a sequence, each of which sees the image and itself alone.

So an image's tokens are paid for once.
"""

from typing import NamedTuple

import numpy as np
import torch

from pipelines.pretrain.tiles import IGNORED
from pipelines.pretrain.words import PAD

ROOM = 112  # tokens of questions behind an image: about six


class Packed(NamedTuple):
    """Questions one behind the other, as many as fit, for a batch of images; int64 (B, room).

    Attributes:
        tokens: of questions and answers; PAD behind the last.
        owners: which question a token belongs to, from 1; 0 for padding.
        offsets: where in its question a token stands.
        answers, marks: targets of the next token, IGNORED where there is none.
        whereabouts: int64 (B, 6, room); `lessons.PLACES` and the way of the shape that a token names, else IGNORED.
    """

    tokens: torch.Tensor
    owners: torch.Tensor
    offsets: torch.Tensor
    answers: torch.Tensor
    marks: torch.Tensor
    whereabouts: torch.Tensor


def pack(lessons_BCQL: np.ndarray, rng: np.random.Generator, room: int = ROOM) -> Packed:
    """Lay out the questions of each image in an order of its own; those that do not fit `room` are left out."""
    images, columns, questions, length = lessons_BCQL.shape
    order_BQ = rng.permuted(np.tile(np.arange(questions), (images, 1)), axis=1)
    lessons_BCQL = np.take_along_axis(lessons_BCQL, order_BQ[:, None, :, None], 2)
    lengths_BQ = (lessons_BCQL[:, 0] != PAD).sum(-1)
    ends_BQ = lengths_BQ.cumsum(1)
    inside_BQL = (np.arange(length) < lengths_BQ[..., None]) & (ends_BQ <= room)[..., None]
    image, question, place = np.nonzero(inside_BQL)
    target = (ends_BQ - lengths_BQ)[image, question] + place
    laid = np.full((columns, images, room), IGNORED, np.int64)
    laid[0] = PAD
    laid[:, image, target] = lessons_BCQL[image, :, question, place].T
    owners, offsets = np.zeros((2, images, room), np.int64)
    owners[image, target], offsets[image, target] = question + 1, place
    tokens, answers, marks, *where = map(torch.from_numpy, laid)
    return Packed(tokens, torch.from_numpy(owners), torch.from_numpy(offsets), answers, marks, torch.stack(where, 1))


def packed_mask(packed: Packed, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Additive mask (B, 1, S, S) and positions (B, S) of a prefix of `length` and questions that ignore each other."""
    owners_BL, offsets_BL = packed.owners, packed.offsets
    prefix = owners_BL.new_zeros(len(owners_BL), length)
    owner_BS = torch.cat([prefix, owners_BL.where(owners_BL > 0, -1)], 1)
    steps = torch.arange(owner_BS.shape[1], device=owner_BS.device)
    allowed_BSS = (steps[:, None] >= steps) & ((owner_BS[:, None] == 0) | (owner_BS[:, :, None] == owner_BS[:, None]))
    mask_BSS = torch.zeros_like(allowed_BSS, dtype=torch.float32).masked_fill(
        ~allowed_BSS, torch.finfo(torch.float32).min
    )
    return mask_BSS[:, None], torch.cat([prefix + steps[:length], offsets_BL + length], 1)
