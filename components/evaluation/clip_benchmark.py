"""Video-MME over moving scenes: its documents in the columns of the original, and its clips (clips.py says where).

Besides these columns there are `prompt`, `family` and `level`, as the six benchmarks have them. lmms-eval's own
functions score it (tasks/videomme.yaml).
"""

import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.evaluation.benchmarks import STYLES
from components.evaluation.clips import FILE, FRAMES, Document, clip_file
from components.progress import track
from components.scenes import moving, render
from components.scenes.questions import LETTERS, Fact

TASK_TYPES = {
    "background": "Spatial Perception",
    "scene": "Object Recognition",
    "colour": "Attribute Perception",
    "direction": "Action Recognition",
    "moves": "Temporal Perception",
    "count_moving": "Counting Problem",
    "first": "Temporal Reasoning",
    "last": "Temporal Reasoning",
    "before": "Temporal Reasoning",
}
"""Question family -> the category of Video-MME that it stands for."""


@dataclass
class Balance:
    """Takes what was asked least so far: first the family, then the answer."""

    rng: np.random.Generator
    asked: Counter

    def choose(self, facts: Sequence[Fact]) -> Fact:
        """The next fact to ask; it counts as asked."""
        facts = self._least(facts, lambda fact: ("family", fact.family))
        facts = self._least(facts, lambda fact: (fact.family, fact.value))
        fact = facts[int(self.rng.integers(len(facts)))]
        self.asked["family", fact.family] += 1
        self.asked[fact.family, fact.value] += 1
        return fact

    def _least(self, facts: Sequence[Fact], of: Callable[[Fact], tuple]) -> list[Fact]:
        fewest = min(self.asked[of(fact)] for fact in facts)
        facts = [fact for fact in facts if self.asked[of(fact)] == fewest]
        names = sorted({of(fact) for fact in facts})
        chosen = names[int(self.rng.integers(len(names)))]
        return [fact for fact in facts if of(fact) == chosen]


def videomme_documents(count: int, style: str, seed: int, side: int) -> Iterator[tuple[Document, moving.Clip]]:
    """A question and its clip, `count` clips with two questions each; a pure function of the arguments."""
    balance = Balance(np.random.default_rng([seed, STYLES.index(style), 101]), Counter())
    for index in range(count):
        clip = moving.sample_clip(seed * 1_000_000 + index, "test", style, side)
        facts = moving.facts(clip)
        for number in range(2):
            fact = balance.choose(facts)
            facts = [other for other in facts if other.family != fact.family]
            question = moving.choice(fact, balance.rng)
            options = [f"{letter}. {option}" for letter, option in zip(LETTERS, question.options, strict=False)]
            yield (
                {
                    "video_id": f"{index:03d}",
                    "duration": "short",
                    "domain": "Life Record",
                    "sub_category": "Daily Life",
                    "url": "",
                    "videoID": f"clip-{index:06d}",
                    "question_id": f"{index:03d}-{number + 1}",
                    "task_type": TASK_TYPES[fact.family],
                    "question": fact.question,
                    "options": options,
                    "answer": question.answer,
                    "prompt": question.prompt,
                    "family": fact.family,
                    "level": moving.LEVELS[fact.family],
                },
                clip,
            )


def write_clips(folder: Path, count: int, style: str, seed: int, side: int) -> None:
    """Write the benchmark.

    Args:
        folder: where to; it may hold other files.
        count: clips, with two questions each.
        style, seed, side: of the scenes.
    """
    from datasets import Dataset, Features, Value, disable_progress_bars
    from datasets import List as ListColumn

    disable_progress_bars()
    (folder / "videos").mkdir(parents=True)
    asked = []
    for document, clip in track(videomme_documents(count, style, seed, side), "drawing clips", 2 * count):
        asked.append(document)
        path = clip_file(folder, document["videoID"])
        if not path.exists():
            path.write_bytes(animated([render(scene) for scene in clip.frames(FRAMES)]))
    features = {name: Value("string") for name in asked[0]} | {"options": ListColumn(Value("string"))}
    Dataset.from_list(asked, Features(features)).to_parquet(folder / FILE)


def animated(frames: Sequence[np.ndarray]) -> bytes:
    """An animated PNG, a quarter of a second a frame, without loss."""
    import av  # not Pillow, which leaves out a frame that is the same as the last

    file = io.BytesIO()
    with av.open(file, "w", format="apng") as container:
        stream = container.add_stream("apng", rate=4)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "rgb24"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()
