"""The prompt of a question as the model's own processor writes it, in token ids, cut after its last image token."""

from functools import lru_cache
from typing import Any

from components.errors import CotamError
from components.mllm.visual import Kind

Prompt = str | tuple[str, ...]
"""A question; or a chat so far: question, answer, ..., and the question that is to be answered now."""


class Prompts:
    """Of one MLLM. Tokenised prompts are remembered: a benchmark asks the same of many images."""

    def __init__(self, processor: Any, image_token_id: int, video_token_id: int | None):
        self.processor = processor
        self.placeholder_ids = {image_token_id, video_token_id} - {None}
        self.ids = lru_cache(maxsize=65536)(self._ids)

    def text(self, question: Prompt, kind: Kind = Kind.IMAGE, count: int = 1) -> str:
        """The whole prompt of a question about an image, `count` images or a video, as the chat template writes it."""
        shown = [{"type": "video" if kind is Kind.VIDEO else "image"}] * count
        messages = []
        for turn, words in enumerate(_turns(question)):
            content = [*(shown if turn == 0 else ()), {"type": "text", "text": words}]
            messages.append({"role": "assistant" if turn % 2 else "user", "content": content})
        return self.processor.apply_chat_template(messages, add_generation_prompt=True)

    def _ids(
        self, question: Prompt, kind: Kind, placeholders: tuple[str, ...]
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What the questions about one visual share (up to its last token), and the rest.

        Both are tuples, so that equal heads are found equal.

        Args:
            question: without image or video tokens.
            kind: of what is asked about.
            placeholders: what stands for each image, or for the video.
        """
        tokens = {self.processor.image_token, getattr(self.processor, "video_token", None)} - {None}
        for token in tokens:
            if any(token in words for words in _turns(question)):
                raise CotamError(f"A question must not contain {token}: it stands for the image.")
        token = self.processor.video_token if kind is Kind.VIDEO else self.processor.image_token
        pieces = self.text(question, kind, len(placeholders)).split(token)
        between = [*placeholders, ""]
        text = "".join(piece + put for piece, put in zip(pieces, between, strict=True))
        ids = self.processor.tokenizer(text).input_ids
        cut = max(index for index, token_id in enumerate(ids) if token_id in self.placeholder_ids) + 1
        return tuple(ids[:cut]), tuple(ids[cut:])


def _turns(question: Prompt) -> tuple[str, ...]:
    return (question,) if isinstance(question, str) else question
