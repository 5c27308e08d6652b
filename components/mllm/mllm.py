"""An MLLM that answers questions about what it is shown: batched, greedy, and the same on every run.

A family (`family.py`) knows how its images become embeddings; prompts, batches and generation are common to all.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from components.errors import CotamError
from components.mllm.family import Family
from components.mllm.generation import bytes_per_token, generate, read_prefixes
from components.mllm.prompts import Prompt, Prompts
from components.mllm.showing import Picture, show
from components.mllm.view import View
from components.mllm.visual import Kind, Seen, as_visual

if TYPE_CHECKING:
    from components.adapter import LatentAdapter
    from components.codec import Decoded

VIEWS_AT_ONCE = 64
"""Views, or tiles, that go through the tower together."""
MEMORY = 4 << 30
"""Bytes of keys and values held at a time; a question about many tiles has a thousand times those of a small one."""


class Mllm:
    """A frozen MLLM with its processor. `batch_size` questions go through the language model at a time."""

    def __init__(self, family: Family, processor: Any, batch_size: int = 64):
        self.family = family
        self.model = family.model
        self.tower = family.tower
        self.geometry = family.geometry
        self.processor = processor
        self.batch_size = batch_size
        end = family.model.generation_config.eos_token_id
        self.end_tokens = list(end) if isinstance(end, list | tuple) else [end]
        config = family.model.config
        self.prompts = Prompts(processor, config.image_token_id, getattr(config, "video_token_id", None))

    def views(self, images: Sequence[Image.Image | np.ndarray]) -> list[Seen]:
        """Images as they are (PIL, or uint8 (H, W, 3)): pixels, nothing added."""
        return show(self.family, [[image] for image in images], Kind.IMAGE)

    @torch.inference_mode()
    def decoded_views(
        self, decoded: Sequence["Decoded"], adapter: "LatentAdapter", alone: bool = False
    ) -> list[Seen]:
        """Decoded images with what the adapter reads in their latents, sampled through the same geometry.

        `alone` hides the images: the tower then sees what the adapter says and nothing else.

        Raises CotamError when the adapter was trained for another codec or another tower.
        """
        return show(self.family, [[item] for item in decoded], Kind.IMAGE, adapter, alone)

    @torch.inference_mode()
    def several_views(
        self, groups: Sequence[Sequence[Picture]], adapter: "LatentAdapter | None" = None
    ) -> list[Seen]:
        """Several images to one question (MMMU), in order: for every group one thing to ask about.

        Args:
            groups: images as they are, or decoded.
            adapter: given only with decoded ones.

        Raises:
            CotamError: a group is empty, or the adapter does not fit.
        """
        return show(self.family, groups, Kind.IMAGES, adapter)

    @torch.inference_mode()
    def video_views(
        self, videos: Sequence[Sequence[Picture]], adapter: "LatentAdapter | None" = None
    ) -> list[Seen]:
        """Videos (Video-MME): for each, its frames in the order of time, all that the MLLM is to see.

        Args:
            videos: frames as they are (PIL, or uint8 (H, W, 3)), or decoded.
            adapter: given only with decoded ones; it speaks for every frame.

        Raises:
            CotamError: a video has no frames, the MLLM takes no videos, or the adapter does not fit.
        """
        return show(self.family, videos, Kind.VIDEO, adapter)

    @torch.inference_mode()
    def answer(self, views: Sequence[Seen], prompts: Sequence[Prompt], max_new_tokens: int = 8) -> list[str]:
        """Answer `prompts[i]` about `views[i]`, greedily, until the model ends or `max_new_tokens` are said.

        A prompt is a question, or a chat that ends with one: (question, answer, ..., question).

        What occurs again (the same object) is seen once, wherever it occurs. Answers come in the order of the
        prompts and are stripped of special tokens and surrounding blanks. Where the context of the language model
        ends, an answer ends: tasks allow thousands of tokens, of which few are said.

        Raises:
            CotamError: a prompt leaves no room for an answer in the context, or holds a token that stands for images.
        """
        if len(views) != len(prompts):
            raise ValueError(f"{len(views)} views for {len(prompts)} prompts")
        questions: dict[Seen, list[int]] = {}
        for index, view in enumerate(views):
            questions.setdefault(view, []).append(index)
        answers = [""] * len(prompts)
        for part in self._passes(questions):
            for index, ids in self._answer_pass(part, prompts, max_new_tokens):
                answers[index] = self.processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
        return answers

    def prompt_text(self, question: str) -> str:
        """The whole prompt of one image and one question, as the model's chat template writes it."""
        return self.prompts.text(question)

    @torch.inference_mode()
    def embed(self, seen: Sequence[Seen]) -> list[list[Tensor]]:
        """What the language model reads of each, for every image (or for the video): (tokens, width)."""
        visuals = [as_visual(one) for one in seen]
        views: list[View] = [view for visual in visuals for view in visual.views]
        embedded: list[Tensor] = []
        for start in range(0, len(views), VIEWS_AT_ONCE):
            embedded += self.family.embed(views[start : start + VIEWS_AT_ONCE])
        parts = iter(embedded)
        return [
            self.family.arrange(visual, [torch.stack([next(parts) for _ in image]) for image in visual.images])
            for visual in visuals
        ]

    def _passes(self, questions: dict[Seen, list[int]]) -> Iterator[dict[Seen, list[int]]]:
        """Cut the questions of each view into passes of a few batches that share no view.

        The prefixes of a pass are in memory together, and its questions can be batched by length.
        """
        part: dict[Seen, list[int]] = {}
        views = 0
        for view, indices in questions.items():
            part[view] = indices
            views += len(as_visual(view).views)
            if sum(map(len, part.values())) >= 4 * self.batch_size or views >= self._views_in_memory:
                yield part
                part, views = {}, 0
        if part:
            yield part

    @property
    def _views_in_memory(self) -> int:
        rows, columns = self.tower.grid
        return max(1, MEMORY // (rows * columns * bytes_per_token(self.model)))

    def _answer_pass(
        self, questions: dict[Seen, list[int]], prompts: Sequence[Prompt], max_new_tokens: int
    ) -> Iterator[tuple[int, list[int]]]:
        """(index of a question, token ids of its answer) for the questions of one pass."""
        heads: dict[tuple[Seen, tuple[int, ...]], int] = {}
        tails: list[tuple[int, int, Tensor]] = []
        rooms: dict[int, int] = {}
        embedded = zip(questions, self.embed(list(questions)), strict=True)
        images = {view: self._spoken(view, shown) for view, shown in embedded}
        for view, indices in questions.items():
            kind, placeholders, _ = images[view]
            for index in indices:
                head, tail = self.prompts.ids(prompts[index], kind, placeholders)
                rooms[index] = self._room(len(head) + len(tail), max_new_tokens)
                row = heads.setdefault((view, head), len(heads))
                tails.append((index, row, torch.tensor(tail)))
        prefixes = read_prefixes(self.model, [self._fill_in(head, images[view][2]) for view, head in heads])
        tails.sort(key=lambda tail: len(tail[2]))
        longest = max(len(head) for _, head in heads)
        batch = min(self.batch_size, max(1, MEMORY // (longest * bytes_per_token(self.model))))
        for start in range(0, len(tails), batch):
            indices, rows, suffixes = zip(*tails[start : start + batch], strict=True)
            most = max(rooms[index] for index in indices)
            answers = generate(self.model, prefixes, rows, suffixes, self.end_tokens, most)
            yield from ((index, ids[: rooms[index]]) for index, ids in zip(indices, answers, strict=True))

    def _room(self, asked: int, max_new_tokens: int) -> int:
        """How many tokens the answer to a prompt of so many may have."""
        context = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if context is None:  # a language model whose positions have no end
            return max_new_tokens
        if asked >= context:
            raise CotamError(
                f"A question of {asked} tokens, those of its images or frames among them, leaves no room for an answer "
                f"in the {context} that this MLLM takes; show fewer images or frames, ask in fewer words, or begin "
                "the chat anew."
            )
        return min(max_new_tokens, context - asked)

    def _spoken(self, seen: Seen, shown: list[Tensor]) -> tuple[Kind, tuple[str, ...], Tensor]:
        """What is asked about, what stands for it in the prompt, and its embeddings in a row."""
        visual = as_visual(seen)
        placeholders = tuple(self.family.placeholder(self.processor, visual, len(one)) for one in shown)
        return visual.kind, placeholders, torch.cat(shown)

    def _fill_in(self, head: tuple[int, ...], image: Tensor) -> Tensor:
        """Embed a prefix, with the image's embeddings in the places of its image tokens."""
        table = self.model.get_input_embeddings()
        ids = torch.tensor(head, device=table.weight.device)
        embeddings = table(ids)
        places = torch.isin(ids, torch.tensor(sorted(self.prompts.placeholder_ids), device=ids.device))
        embeddings[places] = image.to(embeddings)
        return embeddings
