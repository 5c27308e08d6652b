"""Two further benchmarks over scenes, beside the six: several images to a question (MMMU), and videos (Video-MME).

    python -m components.evaluation.further data/benchmarks/further --count 60

Both are parquet files with the columns of the originals, scored by lmms-eval's own functions (tasks/mmmu.yaml,
tasks/videomme.yaml), and besides them `prompt`, `family` and `level` as the six have. They do not enter the mean. The
videos are those of clip_benchmark.py, which the pipeline writes too where `evaluation.clips` wants them.
"""

import argparse
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from components.evaluation.benchmarks import STYLES
from components.evaluation.clip_benchmark import Balance, write_clips
from components.evaluation.clips import Document
from components.files import atomic_dir
from components.progress import track
from components.scenes import Scene, render, sample_scene
from components.scenes.graph import NORMAL_SIZE
from components.scenes.moving import moving_vocabulary
from components.scenes.questions import INSTRUCTIONS, LETTERS, Fact, choice_prompt
from components.scenes.world import DIGITS, SHAPES

FIRST_SCENE = 500_000  # of a seed's million; the six benchmarks take theirs from the start
SLOTS = 7  # columns for images that MMMU has
PLACES = ("first", "second", "third")
LEVELS = {"which_text": "low", "same_background": "low", "which_shape": "high", "which_more": "cross", "total": "cross"}

def several_facts(scenes: Sequence[Scene]) -> list[Fact]:
    """What can be asked of two or three scenes together, that one of them does not tell."""
    places = PLACES[: len(scenes)]
    found = []
    texts = [scene.text.value if scene.text else None for scene in scenes]
    for place, scene in zip(places, scenes, strict=True):
        if scene.text and texts.count(scene.text.value) == 1:
            what = "number" if scene.text.value in DIGITS else "word"
            question = f"which picture shows the {what} {scene.text.value} ?"
            found.append(Fact("which_text", question, "", place, places))
    shapes = [{obj.shape for obj in scene.objects} for scene in scenes]
    for shape in SHAPES:
        holders = [place for place, held in zip(places, shapes, strict=True) if shape in held]
        if len(holders) == 1:
            found.append(Fact("which_shape", f"which picture shows a {shape} ?", "", holders[0], places))
    counts = [len(scene.objects) for scene in scenes]
    if counts.count(max(counts)) == 1:
        found.append(
            Fact("which_more", "which picture has most objects ?", "", places[int(np.argmax(counts))], places)
        )
    same = len({scene.tint for scene in scenes}) == 1
    found.append(
        Fact("same_background", "are the backgrounds the same colour ?", "", "yes" if same else "no", ("yes", "no"))
    )
    found.append(Fact("total", "how many objects are there in all pictures ?", "", str(sum(counts)), ()))
    return found


def mmmu_documents(count: int, style: str, seed: int, side: int) -> Iterator[Document]:
    """`count` questions about two or three pictures each; a pure function of the arguments."""
    balance = Balance(np.random.default_rng([seed, STYLES.index(style), 100]), Counter())
    number = seed * 1_000_000 + FIRST_SCENE
    for index in range(count):
        scenes = [sample_scene(number + k, "test", style, side) for k in range(2 + index % 2)]
        number += len(scenes)
        fact = balance.choose(several_facts(scenes))
        options = [fact.values[k] for k in balance.rng.permutation(len(fact.values))]
        pictures = [_png(render(scene)) for scene in scenes]
        marks = " ".join(f"<image {k + 1}>" for k in range(len(scenes)))
        closed = bool(options)
        yield {
            "id": f"validation_Scenes_{index + 1}",
            "question": f"{marks} {fact.question}",
            "options": str(options),
            "explanation": "",
            **{f"image_{k + 1}": pictures[k] if k < len(pictures) else None for k in range(SLOTS)},
            "img_type": "['Scenes']",
            "answer": LETTERS[options.index(fact.value)] if closed else fact.value,
            "topic_difficulty": "Easy",
            "question_type": "multiple-choice" if closed else "open",
            "subfield": fact.family,
            "prompt": _prompt(fact.question, options),
            "family": fact.family,
            "level": LEVELS[fact.family],
        }


def _prompt(question: str, options: Sequence[str]) -> str:
    return choice_prompt(question, options) if options else f"{question} {INSTRUCTIONS['short']}"


def vocabulary() -> list[str]:
    """Every word of both benchmarks, sorted."""
    words = {*moving_vocabulary(), *PLACES, *map(str, range(10))}
    for question in ("which picture shows the number word a has most objects", "are the backgrounds same in all"):
        words.update(question.split())
    return sorted({*words, "pictures"})


def write_further(folder: Path, count: int, style: str, seed: int, side: int) -> None:
    """Write mmmu.parquet, videomme.parquet and videos/clip-NNNNNN.apng into a folder, which is replaced.

    Args:
        folder: where to.
        count: questions about several pictures, and clips (with two questions each).
        style, seed, side: of the scenes.
    """
    from datasets import Dataset, Features, Value, disable_progress_bars
    from datasets import Image as ImageColumn

    disable_progress_bars()
    with atomic_dir(folder) as temporary:
        several = list(track(mmmu_documents(count, style, seed, side), "drawing several pictures a question", count))
        features = {name: ImageColumn() if name.startswith("image_") else Value("string") for name in several[0]}
        Dataset.from_list(several, Features(features)).to_parquet(temporary / "mmmu.parquet")
        write_clips(temporary, count, style, seed, side)


def _png(pixels: np.ndarray) -> dict[str, Any]:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def main() -> None:
    """Write both benchmarks."""
    parser = argparse.ArgumentParser(
        description="Write both further benchmarks over scenes.",
        epilog="example: python -m components.evaluation.further data/benchmarks/further --count 60",
    )
    parser.add_argument("folder", type=Path, help="replaced, if it is there")
    parser.add_argument("--count", type=int, default=60, help="questions about several pictures, and clips")
    parser.add_argument("--style", choices=STYLES, default="bench")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--side", type=int, default=NORMAL_SIZE, help="of a picture, in pixels (default: %(default)s)")
    args = parser.parse_args()
    if args.count < 1:
        parser.error("--count must be 1 or more")
    write_further(args.folder, args.count, args.style, args.seed, args.side)


if __name__ == "__main__":
    main()
