"""An MLLM that answers questions about views: batched, greedy, and the same on every run.

A family (`FAMILIES`) knows how its images become embeddings; prompts, batches and generation are common to all.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoProcessor

from components.errors import CotamError
from components.mllm.generation import generate, read_prefixes
from components.mllm.llava import Llava
from components.mllm.view import View
from components.vision import ClipTower, Geometry
from components.vision.registry import model_type_of

if TYPE_CHECKING:
    from components.adapter import LatentAdapter
    from components.codec import Decoded

FAMILIES: dict[str, Callable[[Path, Geometry, torch.dtype | str], Llava]] = {"llava": Llava.load}
"""By the `model_type` of config.json: (folder, geometry, dtype) -> the opened model."""


class Mllm:
    """A frozen MLLM with its processor. `batch_size` questions go through the language model at a time."""

    def __init__(self, family: Llava, processor: Any, batch_size: int = 64):
        self.family = family
        self.model = family.model
        self.tower = family.tower
        self.geometry = family.geometry
        self.processor = processor
        self.batch_size = batch_size
        end = family.model.generation_config.eos_token_id
        self.end_tokens = list(end) if isinstance(end, list | tuple) else [end]
        self.token_ids = lru_cache(maxsize=65536)(self._tokenise)
        """(question, tokens per image) -> ids of the prompt up to its last image token, and ids of the rest."""

    def views(self, images: Sequence[Image.Image | np.ndarray]) -> list[View]:
        """Images as they are (PIL, or uint8 (H, W, 3)): pixels, nothing added."""
        return [View(pixels_3HW) for pixels_3HW in self.geometry.pixels(images)]

    @torch.inference_mode()
    def decoded_views(
        self, decoded: Sequence["Decoded"], adapter: "LatentAdapter", alone: bool = False
    ) -> list[View]:
        """Decoded images with what the adapter reads in their latents, sampled through the same geometry.

        `alone` hides the images: the tower then sees what the adapter says and nothing else.

        Raises CotamError when the adapter was trained for another codec or another tower.
        """
        views: dict[int, View] = {}
        for (size, _), group in by_shape(decoded).items():
            items = [decoded[index] for index in group]
            latent_BCHW = torch.stack([torch.as_tensor(item.latent) for item in items])
            quality_BHW = torch.stack([torch.as_tensor(item.level_map) for item in items]).long()
            check_fit(adapter, latent_BCHW.shape[1], self.tower)
            sample = partial(self.geometry.sample_latent, image_size=size, grid=self.tower.grid)
            residual_BND = adapter(latent_BCHW, quality_BHW, sample)
            pixels_B3HW = self.geometry.pixels([item.image for item in items])
            found = [View(*one, alone) for one in zip(pixels_B3HW, residual_BND, strict=True)]
            views |= zip(group, found, strict=True)
        return [views[index] for index in range(len(decoded))]

    @torch.inference_mode()
    def answer(self, views: Sequence[View], prompts: Sequence[str], max_new_tokens: int = 8) -> list[str]:
        """Answer `prompts[i]` about `views[i]`, greedily, until the model ends or `max_new_tokens` are said.

        A view that occurs again (the same object) is seen once, wherever it occurs. Answers come in the order of the
        prompts and are stripped of special tokens and surrounding blanks.
        """
        if len(views) != len(prompts):
            raise ValueError(f"{len(views)} views for {len(prompts)} prompts")
        questions: dict[View, list[int]] = {}
        for index, view in enumerate(views):
            questions.setdefault(view, []).append(index)
        answers = [""] * len(prompts)
        for part in self._passes(questions):
            for index, ids in self._answer_pass(part, prompts, max_new_tokens):
                answers[index] = self.processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
        return answers

    def prompt_text(self, question: str) -> str:
        """The whole prompt of one image and one question, as the model's chat template writes it."""
        content = [{"type": "image"}, {"type": "text", "text": question}]
        return self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)

    def _passes(self, questions: dict[View, list[int]]) -> Iterator[dict[View, list[int]]]:
        """Cut the questions of each view into passes of a few batches that share no view.

        The prefixes of a pass are in memory together, and its questions can be batched by length.
        """
        part: dict[View, list[int]] = {}
        for view, indices in questions.items():
            part[view] = indices
            if sum(map(len, part.values())) >= 4 * self.batch_size:
                yield part
                part = {}
        if part:
            yield part

    def _answer_pass(
        self, questions: dict[View, list[int]], prompts: Sequence[str], max_new_tokens: int
    ) -> Iterator[tuple[int, list[int]]]:
        """(index of a question, token ids of its answer) for the questions of one pass."""
        heads: dict[tuple[View, tuple[int, ...]], int] = {}
        tails: list[tuple[int, int, Tensor]] = []
        images = self._embed(list(questions))
        for view, indices in questions.items():
            for index in indices:
                head, tail = self.token_ids(prompts[index], len(images[view]))
                row = heads.setdefault((view, head), len(heads))
                tails.append((index, row, torch.tensor(tail)))
        prefixes = read_prefixes(self.model, [self._fill_in(head, images[view]) for view, head in heads])
        tails.sort(key=lambda tail: len(tail[2]))
        for start in range(0, len(tails), self.batch_size):
            indices, rows, suffixes = zip(*tails[start : start + self.batch_size], strict=True)
            answers = generate(self.model, prefixes, rows, suffixes, self.end_tokens, max_new_tokens)
            yield from zip(indices, answers, strict=True)

    def _embed(self, views: Sequence[View]) -> dict[View, Tensor]:
        images: dict[View, Tensor] = {}
        for start in range(0, len(views), self.batch_size):
            batch = views[start : start + self.batch_size]
            images |= zip(batch, self.family.embed(batch), strict=True)
        return images

    def _tokenise(self, question: str, image_tokens: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Token ids of the prompt, cut after the last image token: what a view's questions share, and the rest.

        Both are tuples, so that equal heads are found equal.
        """
        token = self.processor.image_token
        if token in question:
            raise CotamError(f"A question must not contain {token}: it stands for the image.")
        text = self.prompt_text(question).replace(token, token * image_tokens)
        ids = self.processor.tokenizer(text).input_ids
        cut = len(ids) - ids[::-1].index(self.model.config.image_token_id)
        return tuple(ids[:cut]), tuple(ids[cut:])

    def _fill_in(self, head: tuple[int, ...], image: Tensor) -> Tensor:
        """Embed a prefix, with the image's embeddings in the places of its image tokens."""
        ids = torch.tensor(head, device=image.device)
        embeddings = self.model.get_input_embeddings()(ids)
        embeddings[ids == self.model.config.image_token_id] = image.to(embeddings.dtype)
        return embeddings


def check_fit(adapter: "LatentAdapter", latent_channels: int, tower: ClipTower) -> None:
    """Raises CotamError when an adapter cannot stand between this latent and this tower."""
    config = adapter.config
    if config.latent_channels != latent_channels:
        raise CotamError(
            f"The adapter reads latents of {config.latent_channels} channels, this codec's have {latent_channels}; "
            "use the adapter that was trained on this codec."
        )
    if (config.feature_dim, tuple(config.grid)) != (tower.width, tower.grid):
        raise CotamError(
            f"The adapter speaks to {config.grid} patches of {config.feature_dim} features, this MLLM's tower has "
            f"{tower.grid} of {tower.width}; use the adapter that was trained on this MLLM."
        )


def by_shape(decoded: Sequence["Decoded"]) -> dict[tuple, list[int]]:
    """Indices of the decoded images by the (height, width) of the image and the latent's shape."""
    groups: dict[tuple, list[int]] = {}
    for index, item in enumerate(decoded):
        groups.setdefault((tuple(item.image.shape[:2]), tuple(item.latent.shape)), []).append(index)
    return groups


def load_mllm(path_or_name: Path | str, batch_size: int = 64) -> Mllm:
    """Open the MLLM in a folder, or of a Hugging Face name: on the GPU as it is stored, else on the CPU in float32.

    Raises CotamError when there is no such model, its files are damaged, or its family is not in `FAMILIES`.
    """
    from components.weights import resolve

    folder = resolve(path_or_name)
    model_type = model_type_of(folder)
    if model_type not in FAMILIES:
        raise CotamError(f"{folder} holds a {model_type!r} model; an MLLM must be one of {', '.join(FAMILIES)}.")
    try:
        processor = AutoProcessor.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise CotamError(f"{folder} has no processor: its tokenizer or image processor files are missing.") from error
    on_gpu = torch.cuda.is_available()
    geometry = Geometry.from_processor(processor.image_processor)
    try:
        family = FAMILIES[model_type](folder, geometry, "auto" if on_gpu else torch.float32)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CotamError(f"The weights in {folder} are missing or damaged ({error}); fetch them again.") from error
    if on_gpu:
        family.model.to("cuda")
    return Mllm(family, processor, batch_size)
