"""A contact sheet: scenes with questions and answers under them, for the docs.

python -m components.scenes.contact_sheet docs/images/scenes.png
python -m components.scenes.contact_sheet docs/images/scenes-high-resolution.png --detail 2
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from components.scenes.graph import NORMAL_SIZE, sample_scene
from components.scenes.questions import Question, choose_fact, facts, phrase
from components.scenes.render import render
from components.scenes.styles import font

COLUMNS, ROWS, LINE = 4, 3, 17
SHOWN = 256  # pixels of a side on the sheet, at least


def _questions(scene, rng: np.random.Generator) -> list[Question]:
    """Three short questions of different families and one multiple choice."""
    found = facts(scene)
    families = rng.permutation(sorted({fact.family for fact in found} - {"existence"}))[:3]
    picked = [choose_fact([fact for fact in found if fact.family == family], rng) for family in families]
    return [*(phrase(fact, form, rng) for fact, form in zip(picked, ("short", "yesno", "choice"), strict=False))]


def contact_sheet(detail: int = 1) -> Image.Image:
    """Test scenes, the upper rows in the training style and the last in the benchmarks'.

    With more `detail` they are larger, and shown pixel by pixel.
    """
    rng = np.random.default_rng(4)
    size = NORMAL_SIZE * detail
    side = max(SHOWN, size)
    columns, rows = (COLUMNS, ROWS) if detail == 1 else (3, 2)
    width, height = side + 64, side + 7 * LINE
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    draw, face = ImageDraw.Draw(sheet), font("DejaVuSans.ttf", 11)
    for index in range(columns * rows):
        row, column = divmod(index, columns)
        scene = sample_scene(index, "test", "bench" if row == rows - 1 else "train", size, detail)
        left, top = column * width + 12, row * height + 12
        picture = Image.fromarray(render(scene)).resize((side, side), Image.Resampling.BICUBIC)
        sheet.paste(picture, (left, top))
        lines = []
        for question in _questions(scene, rng):
            text = question.prompt.split(" answer ")[0].replace(" ?", "?").replace(" . ", ".")
            if question.options:
                lines.append(text.split("? ")[0] + "?")
                text = "   " + text.split("? ")[1]
            lines.append(f"{text}  {question.answer}")
        for number, line in enumerate(lines):
            draw.text((left, top + side + 6 + number * LINE), line, fill="black", font=face)
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--detail", type=int, default=1, help="of the scenes")
    args = parser.parse_args()
    args.path.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(args.detail).save(args.path, optimize=True)


if __name__ == "__main__":
    main()
