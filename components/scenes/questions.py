"""Questions about a scene whose answers are exact, in three forms: a short answer, yes or no, and multiple choice.

`facts` lists everything that can be asked of a scene. A question is one fact in one form; a wrong claim or a wrong
option is another value of the same kind. Prompts are lower-case words set apart by spaces, as the micro MLLM's
word-level tokenizer reads them, and end with an instruction as those of lmms-eval's tasks do.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from components.scenes.graph import Scene, quarter, side_of
from components.scenes.world import (
    COLOURS,
    DIGITS,
    FAMILIES,
    KINDS,
    LEVELS,
    MAX_COUNT,
    PLURALS,
    QUARTERS,
    SHAPES,
    SIDES,
    SIZES,
    TEXTURES,
    TINTS,
    WORDS,
)

COUNTS = tuple(str(n) for n in range(MAX_COUNT + 1))
LETTERS = ("A", "B", "C", "D")
INSTRUCTIONS = {
    "short": "answer with one word .",
    "yesno": "answer yes or no .",
    "choice": "answer with the letter .",
}


@dataclass(frozen=True)
class Fact:
    """Something true of a scene: a family, the question that asks for it, the claim that states it, its true value."""

    family: str
    question: str
    claim: str
    value: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """A prompt without its image, its one right answer, and what it asks about."""

    family: str
    level: str
    form: str
    prompt: str
    answer: str
    options: tuple[str, ...] = field(default=())
    subject: str = ""


def facts(scene: Scene) -> list[Fact]:
    """Everything that can be asked of a scene. Objects are named only where the name fits exactly one."""
    found = [
        Fact("background", "what colour is the background ?", "is the background {} ?", scene.tint, TINTS),
        Fact("scene", "what kind of place is this ?", "is this place a {} ?", scene.kind, KINDS),
    ]
    if scene.text:
        is_digit = scene.text.kind == "digit"
        name = "number" if is_digit else "word"
        values = DIGITS if is_digit else WORDS
        family = "digit" if is_digit else "word"
        found.append(Fact(family, f"what {name} is shown ?", f"is the {name} {{}} shown ?", scene.text.value, values))
    if scene.largest:
        where = quarter(scene.largest, scene.side)
        found.append(
            Fact("position", "where is the largest object ?", "is the largest object at the {} ?", where, QUARTERS)
        )
    shapes = Counter(obj.shape for obj in scene.objects)
    colours = Counter(obj.colour for obj in scene.objects)
    for shape in SHAPES:
        there = "yes" if shapes[shape] else "no"
        found.append(Fact("existence", f"is there a {shape} ?", f"is there a {shape} ?", there, ("yes", "no")))
        if shapes[shape] <= MAX_COUNT:
            many = PLURALS[shape]
            count = str(shapes[shape])
            found.append(Fact("count_shape", f"how many {many} are there ?", f"are there {{}} {many} ?", count, COUNTS))
    for colour in COLOURS:
        if colours[colour] <= MAX_COUNT:
            count = str(colours[colour])
            found.append(
                Fact(
                    "count_colour",
                    f"how many {colour} objects are there ?",
                    f"are there {{}} {colour} objects ?",
                    count,
                    COUNTS,
                )
            )
    unique = [obj for obj in scene.objects if shapes[obj.shape] == 1]
    for obj in unique:
        name = obj.shape
        found.append(Fact("size", f"what size is the {name} ?", f"is the {name} {{}} ?", obj.size, SIZES))
        if obj.size != "small":
            continue
        found.append(Fact("colour", f"what colour is the {name} ?", f"is the {name} {{}} ?", obj.colour, COLOURS))
        found.append(Fact("texture", f"what texture has the {name} ?", f"is the {name} {{}} ?", obj.texture, TEXTURES))
        for other in unique:
            side = side_of(obj, other) if other.size == "small" and other is not obj else None
            if side:
                found.append(
                    Fact(
                        "relation",
                        f"on which side of the {other.shape} is the {name} ?",
                        f"is the {name} {{}} of the {other.shape} ?",
                        side,
                        SIDES,
                    )
                )
    return found


def phrase(fact: Fact, form: str, rng: np.random.Generator) -> Question:
    """Put a fact as a question of a form; existence is always asked as yes or no. Raises ValueError for its choice."""
    instruction = INSTRUCTIONS[form]
    if fact.family == "existence":
        if form == "choice":
            raise ValueError("existence is asked as yes or no, never as a choice")
        prompt = f"{fact.question} {INSTRUCTIONS['yesno']}"
        return Question(fact.family, LEVELS[fact.family], "yesno", prompt, fact.value, subject=fact.question)
    level = LEVELS[fact.family]
    if form == "short":
        return Question(fact.family, level, form, f"{fact.question} {instruction}", fact.value, subject=fact.question)
    wrong = [value for value in fact.values if value != fact.value]
    if form == "yesno":
        claimed, answer = (fact.value, "yes") if rng.random() < 0.5 else (str(rng.choice(wrong)), "no")
        prompt = f"{fact.claim.format(claimed)} {instruction}"
        return Question(fact.family, level, form, prompt, answer, subject=fact.question)
    options = [fact.value, *(str(value) for value in rng.permutation(wrong)[: len(LETTERS) - 1])]
    options = tuple(options[i] for i in rng.permutation(len(options)))
    answer, prompt = LETTERS[options.index(fact.value)], choice_prompt(fact.question, options)
    return Question(fact.family, level, form, prompt, answer, options, fact.question)


def choice_prompt(question: str, options: Sequence[str]) -> str:
    """How a question with options is put, word for word."""
    listed = " ".join(f"{letter} . {option}" for letter, option in zip(LETTERS, options, strict=False))
    return f"{question} {listed} {INSTRUCTIONS['choice']}"


def choose_fact(candidates: list[Fact], rng: np.random.Generator) -> Fact:
    """One of several facts of a family: first a value, each equally likely, then a fact of that value."""
    value = str(rng.choice(sorted({fact.value for fact in candidates})))
    return candidates[int(rng.choice([i for i, fact in enumerate(candidates) if fact.value == value]))]


EMPHASIS = {"count_shape": 2.0, "count_colour": 2.0, "relation": 2.0, "texture": 2.0, "position": 3.0}
"""How much more often than others a family is asked for in training, where it is learned late."""


def draw_questions(scene: Scene, rng: np.random.Generator, count: int) -> list[tuple[Fact, Question]]:
    """Questions of a scene to learn from: families by emphasis, values and forms evenly."""
    grouped = {family: [fact for fact in facts(scene) if fact.family == family] for family in FAMILIES}
    present = [family for family in FAMILIES if grouped[family]]
    weights = np.asarray([EMPHASIS.get(family, 1.0) for family in present])
    drawn = []
    for family in rng.choice(present, size=count, p=weights / weights.sum()):
        fact = choose_fact(grouped[family], rng)
        form = "yesno" if family == "existence" else str(rng.choice(["short", "yesno", "choice"]))
        drawn.append((fact, phrase(fact, form, rng)))
    return drawn


FUNCTION_WORDS = """what colour is the background ? this place a kind of number word shown are there where largest
object at how many objects size texture has on which side yes no with and an ."""


def vocabulary() -> list[str]:
    """Every word that a prompt, an answer or a caption can hold, sorted."""
    words = {*SHAPES, *PLURALS.values(), *COLOURS, *TEXTURES, *SIZES, *KINDS, *TINTS, *DIGITS, *WORDS, *SIDES, *LETTERS}
    for phrases in (*QUARTERS, *INSTRUCTIONS.values(), FUNCTION_WORDS):
        words.update(phrases.split())
    return sorted(words)
