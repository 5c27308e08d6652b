"""Questions of rendered scenes and clips as token arrays: what the micro MLLMs are trained on.

A lesson is one question with its answer. Beside the answer itself it names what the model should already know on the
way: the true value at the question mark, the letter at the last word of the right option, and where a shape is at the
word that names it. Without the first two, comparing a claim or an option with what is seen is learned several times
later than seeing; without the last, comparing two places (which side, which way, what came first) not at all.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from components.evaluation.clips import FRAMES
from components.scenes import Scene, moving
from components.scenes.graph import Obj
from components.scenes.moving import Clip
from components.scenes.questions import Fact, Question, choose_fact, draw_questions
from pipelines.pretrain.material import Material, kept
from pipelines.pretrain.tiles import GRID, IGNORED
from pipelines.pretrain.words import EOS, PAD, word_tokenizer

LENGTH = 44
EXTRA_WORDS = ("<image>", "USER:", "ASSISTANT:")
PLACES = {"frame": FRAMES, "column": GRID, "row": GRID, "last column": GRID, "last row": GRID}
"""What is asked of a word that names a shape, with how many values: the first frame that shows it, where it is there,
and where in the last one."""
WAYS = (None, *moving.DIRECTIONS)
"""What is asked of it besides, in clips: which way it moves."""


def whereabouts(scene: Scene | Clip) -> dict[str, tuple[int, ...]]:
    """The `PLACES` and the number in `WAYS` of every shape whose name fits one object alone; of a scene no way."""
    if isinstance(scene, Clip):
        side, times = scene.scene.side, np.linspace(0, 1, FRAMES)
        found = {}
        for mover in scene.movers:
            frame = int(np.searchsorted(times, mover.comes))
            ends = *_cell(mover.at(times[frame]), side), *_cell(mover.at(1), side)
            found[mover.obj.shape] = (frame, *ends, WAYS.index(mover.direction))
        return found
    shapes = Counter(obj.shape for obj in scene.objects)
    alone = [obj for obj in scene.objects if shapes[obj.shape] == 1]
    return {obj.shape: (0, *_cell(obj, scene.side) * 2, IGNORED) for obj in alone}


def _cell(obj: Obj, side: int) -> tuple[int, int]:
    return int(obj.cx / side * GRID), int(obj.cy / side * GRID)


def lesson(
    fact: Fact, question: Question, ids: Mapping[str, int], known: Mapping[str, tuple[int, ...]]
) -> tuple[np.ndarray, ...]:
    """Tokens, answer targets, way-mark targets and whereabouts of a question: int16 (LENGTH,) each.

    Targets are of the next token, but for whereabouts: `PLACES` in their order and the way, as `known` gives them.
    """
    words = [*question.prompt.split(), "ASSISTANT:", *question.answer.split()]
    tokens = np.full(LENGTH, PAD, np.int16)
    answers, marks = (np.full(LENGTH, IGNORED, np.int16) for _ in range(2))
    tokens[: len(words)] = [ids[word] for word in words]
    tokens[len(words)] = EOS
    start = words.index("ASSISTANT:")
    answers[start : len(words)] = tokens[start + 1 : len(words) + 1]
    if question.form != "short":
        mark = words.index("?")
        marks[mark] = ids[fact.value.split()[0]]
    if question.form == "choice":
        place = words.index("?")
        for letter, option in zip("ABCD", question.options, strict=False):
            place += 2 + len(option.split())
            marks[place] = ids[letter] if letter == question.answer else ids["no"]
    nowhere = (IGNORED,) * (len(PLACES) + 1)
    where = np.full((len(nowhere), LENGTH), IGNORED, np.int16)
    where[:, :start] = np.transpose([known.get(word, nowhere) for word in words[:start]])
    return tokens, answers, marks, *where


EASY = {"background": 0.25, "scene": 0.25, "colour": 0.5}
"""How often families are asked about that any one frame answers, as ordinary scenes do; the others 1."""


def draw_clip_questions(clip: Clip, rng: np.random.Generator, count: int) -> list[tuple[Fact, Question]]:
    """Questions of a clip to learn from: values and forms evenly, families by `EASY`.

    Yes or no is also asked as options, as in Video-MME.
    """
    grouped: dict[str, list[Fact]] = {}
    for fact in moving.facts(clip):
        grouped.setdefault(fact.family, []).append(fact)
    families, drawn = sorted(grouped), []
    often = np.array([EASY.get(family, 1.0) for family in families])
    for family in rng.choice(families, size=count, p=often / often.sum()):
        fact = choose_fact(grouped[family], rng)
        form = str(rng.choice(["short", "yesno", "choice"]))
        drawn.append((fact, moving.choice(fact, rng) if form == "choice" else moving.ask(fact, form, rng)))
    return drawn


def _of_one(material: Material, count: int, ids: Mapping[str, int], seed: int) -> tuple[np.ndarray]:
    rng = np.random.default_rng([5, seed])
    scene = material.graph(seed)
    drawn = (draw_clip_questions if material.frames else draw_questions)(scene, rng, count)
    known = whereabouts(scene)
    rows = [lesson(*one, ids, known) for one in drawn]
    return (np.stack([np.stack(column) for column in zip(*rows, strict=True)]),)


_IDS: dict[str, int] = {}


def word_ids() -> dict[str, int]:
    """The micro LLaVA's word to token table, which the others' tables begin with."""
    if not _IDS:
        _IDS.update(word_tokenizer(EXTRA_WORDS, add_eos=False).get_vocab())
    return _IDS


def lessons(
    folder: Path, material: Material, scenes: int, count: int, ids: Mapping[str, int], processes: int
) -> np.ndarray:
    """`count` lessons of each of the first scenes: int16 (scenes, 9, count, LENGTH) of what `lesson` gives.

    `ids` is the model's word to token table: each has its own numbers for words of clips.
    """
    table = hashlib.sha256(json.dumps(sorted(ids.items())).encode()).hexdigest()[:8]
    work = partial(_of_one, material, count, ids)
    (made,) = kept(material.made_of(folder, f"lessons{count}-{table}", __name__, ".npz"), work, scenes, processes)
    return made
