"""Every question of the benchmarks and every answer to it, kept so that a reader can look behind a score."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from components.evaluation.benchmarks import BENCHMARKS
from components.evaluation.streams import Setting
from components.files import atomic_write, read_json

_FIELDS = ("id", "image", "level", "family", "prompt")


def asked_documents(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(benchmark, document) of everything that is asked in a style's folder, in the order in which it is asked."""
    for name in BENCHMARKS:
        for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            yield name, json.loads(line)


def write_samples(
    out: Path, documents: Iterable[tuple[str, dict[str, Any]]], answers: dict[Setting, list[tuple[str, float]]]
) -> None:
    """Write questions.jsonl, and METHOD-QUALITY.json with a list of [answer, score].

    Args:
        out: where to.
        documents: (benchmark, document) of everything that was asked (`asked_documents`).
        answers: per setting, in the order of the documents.
    """
    rows = [
        {"benchmark": name, "truth": _truth(name, document), **{field: document[field] for field in _FIELDS}}
        for name, document in documents
    ]
    atomic_write(out / "questions.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    for setting, given in answers.items():
        # One line per answer: a difference between two runs can be read.
        lines = ",\n".join(json.dumps(pair) for pair in given)
        atomic_write(out / f"{setting.method}-{setting.quality}.json", f"[\n{lines}\n]\n")


def read(out: Path, setting: Setting) -> Iterator[dict[str, Any]]:
    """Questions with what was answered at one setting: the fields of questions.jsonl, and `answer` and `score`."""
    lines = (out / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    given = read_json(out / f"{setting.method}-{setting.quality}.json")
    for line, (answer, score) in zip(lines, given, strict=True):
        yield json.loads(line) | {"answer": answer, "score": score}


def _truth(benchmark: str, document: dict[str, Any]) -> str:
    if benchmark == "textvqa":
        return document["answers"][0]
    return document["multiple_choice_answer"] if benchmark == "vqav2" else document["answer"]
