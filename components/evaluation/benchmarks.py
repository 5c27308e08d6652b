"""Six benchmarks over scenes, each in the format of the benchmark it is named after.

A benchmark is a set of question families, grouped into the categories of the original. Of what a scene offers, the
category asked least so far is asked next, and within it the answer asked least: so categories and answers are balanced
whatever the scenes hold. Every image shows a digit or a word, since TextVQA has something to read in every image.

A document (one line of BENCHMARK.jsonl, one question put to the MLLM) has the fields of the original, and besides:
`id` (of the question), `image` (name), `prompt` (what is asked, word for word), `family` and `level`.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from components.scenes.graph import Scene, sample_scene
from components.scenes.questions import INSTRUCTIONS, LETTERS, Fact, Question, choose_fact, facts, phrase

STYLES = ("bench", "train")
"""Scores are reported on the first, and beside them on the second, in which codecs and adapters are trained."""
ANNOTATORS = 10
SECOND_PASS = 1_000_000  # added by MMBench to the index of a question asked again with its options shifted

CATEGORIES: dict[str, dict[str, tuple[str, ...]]] = {
    "mme": {
        "existence": ("existence",),
        "count": ("count_shape", "count_colour"),
        "position": ("position", "relation"),
        "color": ("colour",),
        "scene": ("scene",),
        "OCR": ("digit", "word"),
    },
    "pope": {"random": ("existence",)},
    "vqav2": {
        "yes/no": ("existence",),
        "number": ("count_shape", "count_colour"),
        "other, objects": ("colour", "texture", "size"),
        "other, places": ("position", "relation"),
        "other, scene": ("background", "scene"),
    },
    "textvqa": {"text": ("digit", "word")},
    "seedbench": {
        "Scene Understanding": ("scene",),
        "Instance Attributes": ("colour", "texture"),
        "Instances Location": ("position",),
        "Instances Counting": ("count_shape", "count_colour"),
        "Spatial Relation": ("relation",),
        "Text Understanding": ("digit", "word"),
    },
    "mmbench": {
        "image_scene": ("scene",),
        "image_style": ("background",),
        "attribute_recognition": ("colour", "texture", "size"),
        "object_localization": ("position", "count_shape", "count_colour"),
        "spatial_relationship": ("relation",),
        "ocr": ("digit", "word"),
    },
}
"""Per benchmark: the original's categories, and the question families that stand for each."""

L2_CATEGORIES = {
    "image_scene": "coarse_perception",
    "image_style": "coarse_perception",
    "attribute_recognition": "finegrained_perception (instance-level)",
    "object_localization": "finegrained_perception (instance-level)",
    "ocr": "finegrained_perception (instance-level)",
    "spatial_relationship": "finegrained_perception (cross-instance)",
}
BENCHMARKS = tuple(CATEGORIES)

Document = dict[str, Any]


def benchmark_scenes(count: int, style: str, seed: int, size: int, detail: int = 1) -> Iterator[Scene]:
    """The first `count` scenes of the test split, from `seed` on, that show a digit or a word."""
    number = seed * 1_000_000
    while count:
        scene = sample_scene(number, "test", style, size, detail)
        number += 1
        if scene.text:
            count -= 1
            yield scene


@dataclass
class Asker:
    """Chooses what is asked next, of one benchmark in one style. Its counts are what keeps the benchmark balanced."""

    benchmark: str
    rng: np.random.Generator
    asked: Counter = field(default_factory=Counter)

    def documents(self, image: str, scene: Scene) -> list[Document]:
        """The documents of one image."""
        return [document | {"image": image} for document in _FORMATS[self.benchmark](self, image, scene)]

    def choose(
        self, scene: Scene, count: int = 1, wanted: Callable[[Fact], bool] | None = None
    ) -> list[tuple[str, Fact]]:
        """Up to `count` (category, fact), of different families."""
        offered = defaultdict(list)
        for fact in facts(scene):
            if wanted is None or wanted(fact):
                offered[fact.family].append(fact)
        chosen = []
        categories = {
            name: [family for family in families if family in offered]
            for name, families in CATEGORIES[self.benchmark].items()
        }
        while len(chosen) < count and any(categories.values()):
            category = self._least("category", [name for name, families in categories.items() if families])
            family = self._least("family", categories[category])
            value = self._least(family, sorted({fact.value for fact in offered[family]}))
            fact = choose_fact([fact for fact in offered[family] if fact.value == value], self.rng)
            chosen.append((category, fact))
            categories[category].remove(family)
        return chosen

    def _least(self, what: str, names: list[str]) -> str:
        """The name asked least so far, among equals by chance; it counts as asked."""
        fewest = min(self.asked[what, name] for name in names)
        names = [name for name in names if self.asked[what, name] == fewest]
        name = names[int(self.rng.integers(len(names)))]
        self.asked[what, name] += 1
        return name


def _common(question: Question, identity: str, category: str) -> Document:
    return {
        "id": identity,
        "prompt": question.prompt,
        "family": question.family,
        "level": question.level,
        "question": question.subject,
        "category": category,
    }


def _yes_and_no(asker: Asker, scene: Scene) -> Iterator[tuple[str, Question]]:
    """(category, question) twice: a true claim and a false one of the same kind."""
    existence = [fact for fact in facts(scene) if fact.family == "existence"]
    pairable = len({fact.value for fact in existence}) == 2
    for category, fact in asker.choose(scene, wanted=lambda fact: pairable or fact.family != "existence"):
        for answer in ("yes", "no"):
            if fact.family == "existence":
                fact = choose_fact([other for other in existence if other.value == answer], asker.rng)
            yield category, _claim(fact, answer, asker.rng)


def _claim(fact: Fact, answer: str, rng: np.random.Generator) -> Question:
    while (question := phrase(fact, "yesno", rng)).answer != answer:
        pass
    return question


def _mme(asker: Asker, image: str, scene: Scene) -> Iterator[Document]:
    """A pair of questions, one answered yes and one no, joined by their `question_id`."""
    for category, question in _yes_and_no(asker, scene):
        yield _common(question, f"{image}-{question.answer}", category) | {
            "question_id": f"{category}/{image}.png",
            "answer": question.answer.capitalize(),
        }


def _pope(asker: Asker, image: str, scene: Scene) -> Iterator[Document]:
    """One object that is there and one that is not."""
    for category, question in _yes_and_no(asker, scene):
        identity = f"{image}-{question.answer}"
        yield _common(question, identity, category) | {"question_id": identity, "answer": question.answer}


def _vqav2(asker: Asker, image: str, scene: Scene) -> Iterator[Document]:
    """Two open questions with the answers of ten annotators, who agree."""
    for number, (category, fact) in enumerate(asker.choose(scene, 2)):
        question = phrase(fact, "short", asker.rng)
        answers = [
            {"answer": question.answer, "answer_confidence": "yes", "answer_id": annotator + 1}
            for annotator in range(ANNOTATORS)
        ]
        yield _common(question, f"{image}-{number}", category) | {
            "question_id": f"{image}-{number}",
            "question_type": " ".join(question.subject.split()[:2]),
            "answer_type": category.split(",")[0],
            "multiple_choice_answer": question.answer,
            "answers": answers,
        }


def _textvqa(asker: Asker, image: str, scene: Scene) -> Iterator[Document]:
    """What is written in the image, read by ten annotators."""
    for category, fact in asker.choose(scene):
        question = phrase(fact, "short", asker.rng)
        yield _common(question, image, category) | {
            "question_id": image,
            "answers": [question.answer] * ANNOTATORS,
        }


def _seedbench(asker: Asker, image: str, scene: Scene) -> Iterator[Document]:
    """Two questions with four options each."""
    for number, (category, fact) in enumerate(asker.choose(scene, 2)):
        question = phrase(fact, "choice", asker.rng)
        choices = {f"choice_{letter.lower()}": text for letter, text in zip(LETTERS, question.options, strict=True)}
        yield (
            _common(question, f"{image}-{number}", category)
            | choices
            | {
                "question_id": f"{image}-{number}",
                "question_type_id": list(CATEGORIES["seedbench"]).index(category) + 1,
                "data_type": "image",
                "answer": question.answer,
            }
        )


def _mmbench(asker: Asker, image: str, scene: Scene) -> Iterator[Document]:
    """Two questions, each asked twice: the second pass has the options shifted by one place (CircularEval)."""
    for number, (category, fact) in enumerate(asker.choose(scene, 2)):
        first = phrase(fact, "choice", asker.rng)
        for shift, question in ((0, first), (SECOND_PASS, shifted(first))):
            options = dict.fromkeys(LETTERS) | dict(zip(LETTERS, question.options, strict=False))
            yield (
                _common(question, f"{image}-{number}", category)
                | options
                | {
                    "index": shift + 10 * int(image) + number,
                    "hint": "nan",
                    "L2-category": L2_CATEGORIES[category],
                    "source": "scenes",
                    "split": "dev",
                    "answer": question.answer,
                }
            )


def shifted(question: Question) -> Question:
    """The same choice with its first option moved to the end."""
    options = (*question.options[1:], question.options[0])
    right = question.options[LETTERS.index(question.answer)]
    listed = " ".join(f"{letter} . {option}" for letter, option in zip(LETTERS, options, strict=False))
    return Question(
        family=question.family,
        level=question.level,
        form=question.form,
        prompt=f"{question.subject} {listed} {INSTRUCTIONS['choice']}",
        answer=LETTERS[options.index(right)],
        options=options,
        subject=question.subject,
    )


_FORMATS: dict[str, Callable[[Asker, str, Scene], Iterator[Document]]] = {
    "mme": _mme,
    "pope": _pope,
    "vqav2": _vqav2,
    "textvqa": _textvqa,
    "seedbench": _seedbench,
    "mmbench": _mmbench,
}
