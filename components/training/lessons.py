"""Questions about training pictures and what an MLLM says to them: for methods that learn from its cross-entropy.

Several questions share one image in a sequence; each sees the image and itself alone, so that the image's tokens are
paid for once. Shapes: H tokens up to the last of the image, S of the questions behind it.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.errors import CotamError
from components.mllm import Mllm
from components.scenes.graph import Scene
from components.scenes.questions import draw_questions
from components.training.placed import Placed

IGNORED = -100
HELD_OUT_EPOCH = 2**20  # no training is as long


class Views(Protocol):
    """What is asked about (`FeatureStore`, or `PixelViews` over one)."""

    def __len__(self) -> int: ...

    def order(self, epoch: int) -> np.ndarray: ...

    def batch(self, epoch: int, examples: np.ndarray) -> dict[str, Tensor]: ...

    def held_out(self, quality: int, size: int) -> Iterator[dict[str, Tensor]]: ...


class SceneLessons:
    """Views with questions about them; which ones is a pure function of (seed, epoch, picture).

    Args:
        count: questions per picture.

    Raises:
        CotamError: the pictures have no scenes, or the MLLM would cut them into tiles.
    """

    def __init__(self, views: Views, scenes: Sequence[Scene] | None, mllm: Mllm, seed: int, count: int):
        if scenes is None:
            raise CotamError(
                "This method learns from questions about drawn scenes, but the pictures of data.source have none; set "
                "data.source to data/scenes, or leave the method out."
            )
        self.views, self.scenes, self.mllm, self.seed, self.count = views, scenes, mllm, seed, count
        self.picture = Placed(mllm)

    def __len__(self) -> int:
        return len(self.views)

    def order(self, epoch: int) -> np.ndarray:
        """As the views'."""
        return self.views.order(epoch)

    def batch(self, epoch: int, examples: np.ndarray) -> dict[str, Tensor]:
        """As the views', with `tokens`, `owners`, `places` and `targets`, int64 (B, S).

        owners: which question a token belongs to, from 1; 0 for padding. places: where in its question it stands.
        targets: the next token of an answer, IGNORED elsewhere.
        """
        return self.views.batch(epoch, examples) | self._questions(epoch, examples)

    def held_out(self, quality: int, size: int) -> Iterator[dict[str, Tensor]]:
        """As the views', with the same questions at every quality."""
        first = len(self)
        for batch in self.views.held_out(quality, size):
            following = first + len(batch["patches"])
            yield batch | self._questions(HELD_OUT_EPOCH, np.arange(first, following))
            first = following

    def _questions(self, epoch: int, examples: np.ndarray) -> dict[str, Tensor]:
        rows = [self._row(epoch, int(example)) for example in examples]
        length = max(len(row[0]) for row in rows)
        padding = {"tokens": 0, "owners": 0, "places": 0, "targets": IGNORED}
        laid = {}
        for column, (name, empty) in enumerate(padding.items()):
            table = np.full((len(rows), length), empty, np.int64)
            for place, row in enumerate(rows):
                table[place, : len(row[column])] = row[column]
            laid[name] = torch.from_numpy(table)
        return laid

    def _row(self, epoch: int, example: int) -> tuple[list[int], list[int], list[int], list[int]]:
        # The last number is this module's own: draws.py and mixing.py have the same three before it.
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, epoch, example, 2])))
        tokens, owners, places, targets = [], [], [], []
        drawn = draw_questions(self.scenes[example], random, self.count)
        for owner, (_, question) in enumerate(drawn, 1):
            _, asked = self.picture.prompt(question.prompt)
            answer = self.mllm.processor.tokenizer(question.answer, add_special_tokens=False).input_ids
            answer = [*answer, self.mllm.end_tokens[0]]
            tokens += [*asked, *answer[:-1]]
            targets += [IGNORED] * (len(asked) - 1) + answer
            owners += [owner] * (len(asked) + len(answer) - 1)
            places += range(len(asked) + len(answer) - 1)
        return tokens, owners, places, targets


class Answering(nn.Module):
    """An MLLM's cross-entropy on answers, given the tower's states. Its weights are the MLLM's own."""

    def __init__(self, mllm: Mllm):
        super().__init__()
        self.mllm = mllm.model
        self._picture = Placed(mllm)
        head, _ = self._picture.prompt("?")
        self.register_buffer("head_H", torch.tensor(head), persistent=False)

    def forward(self, features_BTD: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`answer`, the mean cross-entropy of the answers' tokens, and `right`, the share that comes out likeliest.

        Args:
            features_BTD: the tower's states at its feature layer, CLS first.
            batch: of `SceneLessons`.
        """
        model = self._picture.mllm.model
        embed = model.get_input_embeddings()
        seen_BNE = self._picture.embed(features_BTD)
        head_BHE = embed(self.head_H).expand(len(seen_BNE), -1, -1)
        is_image_H = self.head_H == model.config.image_token_id
        places_BHE = is_image_H[None, :, None].expand_as(head_BHE)
        head_BHE = head_BHE.masked_scatter(places_BHE, seen_BNE.to(head_BHE.dtype))
        mask, positions = packed_mask(batch["owners"], batch["places"], len(self.head_H), head_BHE.dtype)
        hidden_BSE = model.model.language_model(
            inputs_embeds=torch.cat([head_BHE, embed(batch["tokens"])], 1),
            attention_mask=mask,
            position_ids=positions,
            use_cache=False,
        ).last_hidden_state[:, len(self.head_H) :]
        asked = batch["targets"] != IGNORED
        scores = model.lm_head(hidden_BSE[asked]).float()
        wanted = batch["targets"][asked]
        return {"answer": F.cross_entropy(scores, wanted), "right": (scores.argmax(-1) == wanted).float().mean()}


def packed_mask(owners_BS: Tensor, places_BS: Tensor, head: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Additive mask (B, 1, H + S, H + S) and positions (B, H + S) of questions that see the head and themselves."""
    common_BH = owners_BS.new_zeros(len(owners_BS), head)
    owner_BT = torch.cat([common_BH, owners_BS.where(owners_BS > 0, -1)], 1)
    steps_T = torch.arange(owner_BT.shape[1], device=owners_BS.device)
    own_BTT = (owner_BT[:, None] == 0) | (owner_BT[:, :, None] == owner_BT[:, None])
    allowed_BTT = (steps_T[:, None] >= steps_T) & own_BTT
    mask_BTT = torch.zeros(allowed_BTT.shape, dtype=dtype, device=owners_BS.device)
    mask_BTT = mask_BTT.masked_fill(~allowed_BTT, torch.finfo(dtype).min)
    return mask_BTT[:, None], torch.cat([common_BH + steps_T[:head], places_BS + head], 1)
