"""Which questions are shown answered before and after, chosen by a rule and not by taste.

The rate is one third of the way up the codec's curve. The images are the first by name on which the two codecs differ:
up to three where CoTAM answers more rightly, and up to two where the codec alone does, so that a reader sees both.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

BETTER_SHOWN, WORSE_SHOWN = 3, 2
QUESTIONS_SHOWN = 4


@dataclass(frozen=True)
class Answer:
    """What the MLLM said to one question about one image as one method delivered it."""

    method: str
    benchmark: str
    image: str
    question: str
    prompt: str
    level: str
    truth: str
    text: str
    right: bool


def read_answers(samples: Path, settings: Mapping[str, int | str]) -> list[Answer]:
    """What the MLLM answered at the given settings.

    Args:
        samples: `results/scores/<codec>-<mllm>/samples`.
        settings: method -> quality; "clean" has the quality "-".
    """
    from components.evaluation.samples import read
    from components.evaluation.streams import Setting

    found = []
    for method, quality in settings.items():
        for index, row in enumerate(read(samples, Setting(method, str(quality)))):
            shared = {name: row[name] for name in ("benchmark", "image", "prompt", "level", "truth")}
            answer = {"text": row["answer"], "right": row["score"] == 1}
            found.append(Answer(method=method, question=str(index), **answer, **shared))
    return found


def matched_qualities(base_curve: list[dict], other_curve: list[dict]) -> tuple[dict, dict]:
    """The point a third of the way up the codec's own curve, and the other method's point nearest to its rate."""
    base = sorted(base_curve, key=lambda point: point["bpp"])
    point = base[len(base) // 3]
    return point, min(other_curve, key=lambda other: abs(other["bpp"] - point["bpp"]))


def by_question(answers: Iterable[Answer]) -> dict[tuple[str, str, str], dict[str, Answer]]:
    """(image, benchmark, question) -> method -> answer; only questions that every method answered."""
    table: dict = defaultdict(dict)
    methods = set()
    for answer in answers:
        table[answer.image, answer.benchmark, answer.question][answer.method] = answer
        methods.add(answer.method)
    return {key: given for key, given in sorted(table.items()) if given.keys() == methods}


def agreement(table: dict, base: str, other: str) -> dict[tuple[bool, bool], int]:
    """How many questions (the codec alone, the other method) got right, in the four cases."""
    counts = {(first, second): 0 for first in (True, False) for second in (True, False)}
    for given in table.values():
        counts[given[base].right, given[other].right] += 1
    return counts


def choose(table: dict, base: str, other: str) -> list[tuple[str, list[dict[str, Answer]]]]:
    """Images by the module's rule, each with up to four of its questions, those on which the codecs differ first."""
    gains: dict[str, int] = defaultdict(int)
    questions = defaultdict(list)
    for (image, _, _), given in table.items():
        gains[image] += given[other].right - given[base].right
        questions[image].append(given)
    better = [image for image, gain in gains.items() if gain > 0][:BETTER_SHOWN]
    worse = [image for image, gain in gains.items() if gain < 0][:WORSE_SHOWN]
    return [(image, _shown(questions[image], base, other)) for image in (*better, *worse)]


def _shown(questions: list[dict[str, Answer]], base: str, other: str) -> list[dict[str, Answer]]:
    unique = {given[base].prompt: given for given in reversed(questions)}
    ranked = sorted(unique.values(), key=lambda given: given[base].right == given[other].right)
    return ranked[:QUESTIONS_SHOWN]
