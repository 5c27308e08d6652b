"""The pictures of a run: images as files brought them, and where in an image the bits of a file went.

Files are read from the rate step's streams.zip and decoded by the codec itself, so that what is shown is what was asked
about.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.evaluation.allocation import Allocation, allocate, changes
from components.paths import Paths
from components.reporting.examples import Answer, agreement, by_question, choose, matched_qualities
from components.reporting.methods import benchmark_label, method_look
from components.reporting.numbers import per_cent
from components.reporting.page import Tile
from components.reporting.pictures import data_uri, heat, level_overlay

STYLE = "bench"
ROWS = 3
"""Images whose maps are shown; the numbers are over `MEASURED`."""
MEASURED = 16


@dataclass(frozen=True)
class Coded:
    """An image as one method brought it: the decoded uint8 (H, W, 3) picture, and the file."""

    image_HWC: np.ndarray
    file: bytes

    @property
    def note(self) -> str:
        """`412 bytes, 0.201 bpp`."""
        height, width = self.image_HWC.shape[:2]
        return f"{len(self.file)} bytes, {8 * len(self.file) / (height * width):.3f} bpp"


class CodedFiles:
    """Reads a codec's files and decodes a few of them."""

    def __init__(self, paths: Paths, name: str, weights: Path):
        """`name` of the codec in the settings, and the folder of its weights.

        Raises:
            CotamError: streams or weights are missing or damaged.
        """
        from components.codec import Codec
        from components.evaluation.streams import Streams

        self.paths = paths
        self.name = name
        self.codec = Codec.from_pretrained(weights)
        self.streams = Streams(paths.rate(name) / "streams.zip")

    def original(self, image: str) -> np.ndarray:
        """A benchmark's image before it was encoded, uint8 (H, W, 3)."""
        from PIL import Image

        with Image.open(self.paths.benchmarks / STYLE / "images" / f"{image}.png") as picture:
            return np.asarray(picture.convert("RGB"))

    def files(self, method: str, quality: int) -> dict[str, bytes]:
        """Image name -> file."""
        from components.evaluation.streams import Setting

        return self.streams.files(Setting(method, str(quality)), STYLE)

    def decode(self, files: list[bytes]) -> list[Coded]:
        """Decode files of the codec, with or without a map."""
        decoded = self.codec.decode(files)
        return [Coded(np.asarray(one.image), file) for one, file in zip(decoded, files, strict=True)]


def allocation(
    coded_files: CodedFiles, curve: list[dict], quality: int
) -> tuple[list[list[Tile]], dict[str, float | None]]:
    """Where the bits went with a map, beside a file of about the same size without one (paper, Fig. 16).

    Args:
        coded_files: of the codec.
        curve: of the codec alone, for its qualities.
        quality: base quality of the files with a map.

    Returns:
        Rows of tiles (image, map, bits without, bits with), and the change of bits in per cent where the map
        raises and where it lowers the quality: {"raised", "lowered"}, over `MEASURED` images; None where it does
        neither in any of them.
    """
    guided_files = coded_files.files("cotam", quality)
    plain_files = {point["quality"]: coded_files.files(coded_files.name, point["quality"]) for point in curve}
    rows, found = [], []
    for image in sorted(guided_files)[:MEASURED]:
        plain = {plain_quality: files[image] for plain_quality, files in plain_files.items()}
        original = coded_files.original(image)
        found.append(allocate(coded_files.codec, original, guided_files[image], plain, quality))
        if len(rows) < ROWS:
            rows.append(_allocation_row(coded_files, image, original, found[-1]))
    return rows, changes(found)


def _allocation_row(coded_files: CodedFiles, image: str, original, found: Allocation) -> list[Tile]:
    top = max(found.plain_hw.max(), found.guided_hw.max())
    size = original.shape[:2]
    label = method_look(coded_files.name, coded_files.name).label
    tiles = [
        Tile(data_uri(original), f"Image {image}", "original", f"benchmark image {image}"),
        Tile(data_uri(level_overlay(original, found.levels_hw)), "Its map",
             "orange: a higher quality; blue: a lower one", "the image in grey with its regions tinted", smooth=True),
    ]  # fmt: skip
    coded = (label, found.plain_bytes, found.plain_hw), ("CoTAM", found.guided_bytes, found.guided_hw)
    for name, file_size, bits_hw in coded:
        note = f"{file_size} bytes; up to {bits_hw.max():.0f} bits in a place"
        tiles.append(Tile(data_uri(heat(bits_hw, top, size)), f"Bits of {name}", note, f"bits per place, {name}"))
    return tiles


@dataclass(frozen=True)
class Example:
    """An image before and after two codecs, with questions about it: method -> answer, for `clean` too."""

    image: str
    original_HWC: np.ndarray
    base: Coded
    cotam: Coded
    questions: list[dict[str, Answer]]


def matched_settings(curves: dict[str, list[dict]], codec: str) -> dict[str, int]:
    """Method -> quality at which the examples are shown, for the codec alone and CoTAM (about equal rates)."""
    base, cotam = matched_qualities(curves[codec], curves["cotam"])
    return {codec: base["quality"], "cotam": cotam["quality"]}


def find_examples(coded_files: CodedFiles, answers: list[Answer], settings: dict[str, int]) -> list[Example]:
    """Examples by the rule of components/reporting/examples.py, decoded."""
    chosen = choose(by_question(answers), coded_files.name, "cotam")
    files = {method: coded_files.files(method, quality) for method, quality in settings.items()}
    found = []
    for image, questions in chosen:
        base, cotam = coded_files.decode([files[coded_files.name][image], files["cotam"][image]])
        found.append(Example(image, coded_files.original(image), base, cotam, questions))
    return found


def examples_section(coded_files: CodedFiles, answers: list[Answer], curves: dict[str, list[dict]], mllm: str) -> dict:
    """What the page shows of the examples."""
    codec = coded_files.name
    settings = matched_settings(curves, codec)
    rates = {
        method: next(point["bpp"] for point in curves[method] if point["quality"] == quality)
        for method, quality in settings.items()
    }
    label = method_look(codec, codec).label
    counts = agreement(by_question(answers), codec, "cotam")
    extra = per_cent(100 * (rates["cotam"] / rates[codec] - 1))
    return {
        "intro": (
            f"{label} at quality {settings[codec]} ({rates[codec]:.3f} bpp over all images) and CoTAM at base "
            f"quality {settings['cotam']} ({rates['cotam']:.3f} bpp, {extra}), the qualities nearest in rate. First "
            "images on which CoTAM answers more rightly, then such on which it answers less."
        ),
        "agreement": {
            "title": "All questions at these rates",
            "rows": [
                {"label": f"{label} {word}", "cells": [counts[right, True], counts[right, False]]}
                for right, word in ((True, "right"), (False, "wrong"))
            ],
        },
        "shown": [_shown(example, codec, label) for example in find_examples(coded_files, answers, settings)],
        "how": (
            "The rate is a third of the way up the codec's curve. Of all images on which the two differ, the first by "
            "name are shown, and of their questions those first on which they differ. "
            f"The MLLM ({mllm}) sees the decoded picture, and for CoTAM what the adapter adds to its patch embeddings."
        ),
    }


def _shown(example: Example, codec: str, label: str) -> dict:
    tiles = [
        Tile(data_uri(example.original_HWC), "Original", f"image {example.image}", "the original image"),
        Tile(data_uri(example.base.image_HWC), label, example.base.note, f"the image decoded by {label}"),
        Tile(data_uri(example.cotam.image_HWC), "CoTAM", example.cotam.note, "the image decoded by CoTAM"),
    ]
    questions = []
    for given in example.questions:
        any_answer = given[codec]
        questions.append(
            {
                "prompt": any_answer.prompt,
                "source": f"{benchmark_label(any_answer.benchmark)}, {any_answer.level}-level",
                "truth": any_answer.truth,
                "answers": [given[method] for method in ("clean", codec, "cotam")],
            }
        )
    return {"tiles": tiles, "questions": questions}
