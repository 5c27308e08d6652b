"""Questions of rendered scenes and clips as token arrays: what the micro MLLMs are trained on.

A lesson is one question with its answer. Beside the answer itself it names what the model should already know on the
way: the true value at the question mark, and the letter at the last word of the right option. Without these, comparing
a claim or an option with what is seen is learned several times later than seeing.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from components.scenes import moving
from components.scenes.moving import Clip
from components.scenes.questions import Fact, Question, choose_fact, draw_questions
from pipelines.pretrain.material import Material, kept
from pipelines.pretrain.tiles import IGNORED
from pipelines.pretrain.words import EOS, PAD, word_tokenizer

LENGTH = 44
EXTRA_WORDS = ("<image>", "USER:", "ASSISTANT:")


def lesson(fact: Fact, question: Question, ids: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, answer targets and way-mark targets of a question: int16 (LENGTH,) each, targets of the next token."""
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
    return tokens, answers, marks


def draw_clip_questions(clip: Clip, rng: np.random.Generator, count: int) -> list[tuple[Fact, Question]]:
    """Questions of a clip to learn from: families, values and forms evenly; yes or no also as options, as Video-MME."""
    grouped: dict[str, list[Fact]] = {}
    for fact in moving.facts(clip):
        grouped.setdefault(fact.family, []).append(fact)
    drawn = []
    for family in rng.choice(sorted(grouped), size=count):
        fact = choose_fact(grouped[family], rng)
        form = str(rng.choice(["short", "yesno", "choice"]))
        drawn.append((fact, moving.choice(fact, rng) if form == "choice" else moving.ask(fact, form, rng)))
    return drawn


def _of_one(material: Material, count: int, ids: Mapping[str, int], seed: int) -> tuple[np.ndarray]:
    rng = np.random.default_rng([5, seed])
    if material.frames:
        drawn = draw_clip_questions(material.clip(seed), rng, count)
    else:
        drawn = draw_questions(material.scene(seed), rng, count)
    rows = [lesson(*one, ids) for one in drawn]
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
    """`count` lessons of each of the first scenes: int16 (scenes, 3, count, LENGTH) of tokens, answers, marks.

    `ids` is the model's word to token table: each has its own numbers for words of clips.
    """
    table = hashlib.sha256(json.dumps(sorted(ids.items())).encode()).hexdigest()[:8]
    work = partial(_of_one, material, count, ids)
    (made,) = kept(material.made_of(folder, f"lessons{count}-{table}", __name__, ".npz"), work, scenes, processes)
    return made
