"""Requests of lmms-eval's tasks, put to an MLLM: what each shows is opened, sent through a codec, seen, asked about.

What the codec is, `CotamModel` (lmms_model.py) and `TaskAsker` (task_asking.py) say.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmms_eval.api.instance import Instance
from PIL import ImageFile

from components.errors import CotamError
from components.evaluation.lmms_failures import reason
from components.evaluation.visuals import Shown, open_visuals
from components.mllm import see

if TYPE_CHECKING:
    from components.adapter import LatentAdapter
    from components.mllm import Mllm, Seen
    from components.mllm.showing import Picture

PICTURES_AT_ONCE = 64  # pictures and frames that are in memory together,
PIXELS_AT_ONCE = 1 << 26  # and their pixels


class Asker:
    """Answers requests, greedily; requests about one picture or video see it once.

    Attributes:
        mllm: who is asked.
        adapter: what reads in the decoded latents; None: the MLLM sees pixels alone.
        task_dict: task -> its documents by split, which requests name by their numbers.
        frames: taken of a video, spread evenly.
        scenes: where tasks over scenes find the pictures and clips that they name.
    """

    mllm: "Mllm"
    adapter: "LatentAdapter | None"
    task_dict: Mapping[str, Mapping[str, Any]]
    frames: int
    scenes: Path

    def received(self, shown: Sequence[Shown]) -> "list[list[Picture]]":
        """What comes of the pictures of every thing that is shown, after the codec."""
        raise NotImplementedError

    def ask(self, requests: Sequence[Instance]) -> Iterator[tuple[Instance, Shown, str]]:
        """Every request, in its order, with what it shows and the answer.

        Raises:
            CotamError: a task shows what cannot be opened or what the MLLM does not take, or wants sampled answers.
        """
        for part in self._parts(requests):
            for (request, shown), answer in zip(part, self._answers(part), strict=True):
                yield request, shown, answer

    def _parts(self, requests: Sequence[Instance]) -> Iterator[list[tuple[Instance, Shown]]]:
        """Cut requests, in their order, where their pictures would become too many to hold."""
        part: list[tuple[Instance, Shown]] = []
        held: dict[Hashable, Shown] = {}
        for request in requests:
            shown = self._open(request)
            if shown.key not in held and part:
                together = [*held.values(), shown]
                pictures = sum(len(one.pictures) for one in together)
                if pictures > PICTURES_AT_ONCE or sum(one.pixels for one in together) > PIXELS_AT_ONCE:
                    yield part
                    part, held = [], {}
            part.append((request, held.setdefault(shown.key, shown)))
        if part:
            yield part

    def _answers(self, part: Sequence[tuple[Instance, Shown]]) -> list[str]:
        distinct = list({id(shown): shown for _, shown in part}.values())
        seen = dict(zip(map(id, distinct), self._see(distinct), strict=True))
        answers: dict[int, str] = {}
        by_length: dict[int, list[int]] = {}
        for index, (request, _) in enumerate(part):
            by_length.setdefault(_new_tokens(request), []).append(index)
        for new_tokens, indices in by_length.items():
            views = [seen[id(part[index][1])] for index in indices]
            prompts = [self._prompt(part[index][0].args[0]) for index in indices]
            answers |= zip(indices, self.mllm.answer(views, prompts, new_tokens), strict=True)
        return [_until(answers[index], request.args[1].get("until")) for index, (request, _) in enumerate(part)]

    def _prompt(self, text: str) -> str:
        """Without marks for pictures: where they stand is the chat template's affair."""
        processor = self.mllm.processor
        for token in (getattr(processor, "image_token", None), getattr(processor, "video_token", None)):
            text = text.replace(token, "") if token else text
        return text.strip()

    def _open(self, request: Instance) -> Shown:
        """What a request is about."""
        _, _, doc_to_visual, number, task, split = request.args
        question = f"Question {number} of {task}"
        # lmms-eval has Pillow fill files that were cut short with grey; asked about that, no score means anything.
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            visuals = doc_to_visual(self.task_dict[task][split][number])
        except Exception as error:  # decoders of damaged files raise anything
            raise CotamError(
                f"{question} cannot be read ({reason(error)}); fetch the benchmark's files again."
            ) from error
        return open_visuals(visuals, self.frames, self.scenes, question)

    def _see(self, shown: Sequence[Shown]) -> "list[Seen]":
        """What the MLLM sees of them, after the codec."""
        groups = self.received(shown)
        seen: dict[int, Seen] = {}
        for kind in {group.kind for group in shown}:
            places = [place for place, group in enumerate(shown) if group.kind is kind]
            chosen = [groups[place] for place in places]
            seen |= zip(places, see(self.mllm, kind, chosen, self.adapter), strict=True)
        return [seen[place] for place in range(len(shown))]


def _new_tokens(request: Instance) -> int:
    """How long an answer may be. What a task asks for beyond that is what greedy decoding does, or is refused."""
    options = request.args[1]
    if options.get("do_sample") or (options.get("temperature") or 0) > 0 or (options.get("num_beams") or 1) > 1:
        raise CotamError(f"The task {request.args[4]} wants sampled answers; cotam answers greedily.")
    return int(options.get("max_new_tokens") or 128)


def _until(answer: str, stops: str | Sequence[str] | None) -> str:
    """An answer up to where the task says that it ends."""
    for stop in [stops] if isinstance(stops, str) else stops or ():
        if stop:
            answer = answer.split(stop)[0]
    return answer.strip()
