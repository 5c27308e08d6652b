"""A contact sheet: scenes with questions and answers under them, for the docs.

python -m components.scenes.contact_sheet docs/images/scenes.png
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from components.scenes.graph import sample_scene
from components.scenes.questions import Question, choose_fact, facts, phrase
from components.scenes.render import render
from components.scenes.styles import font

COLUMNS, ROWS, ZOOM, LINE = 4, 3, 2, 17
WIDTH, HEIGHT = 128 * ZOOM + 64, 128 * ZOOM + 7 * LINE


def _questions(scene, rng: np.random.Generator) -> list[Question]:
    """Three short questions of different families and one multiple choice."""
    found = facts(scene)
    families = rng.permutation(sorted({fact.family for fact in found} - {"existence"}))[:3]
    picked = [choose_fact([fact for fact in found if fact.family == family], rng) for family in families]
    return [*(phrase(fact, form, rng) for fact, form in zip(picked, ("short", "yesno", "choice"), strict=False))]


def contact_sheet() -> Image.Image:
    """Test scenes, the upper rows in the training style and the last in the benchmarks'."""
    rng = np.random.default_rng(4)
    sheet = Image.new("RGB", (COLUMNS * WIDTH, ROWS * HEIGHT), "white")
    draw, face = ImageDraw.Draw(sheet), font("DejaVuSans.ttf", 11)
    for index in range(COLUMNS * ROWS):
        row, column = divmod(index, COLUMNS)
        scene = sample_scene(index, "test", "bench" if row == ROWS - 1 else "train")
        left, top = column * WIDTH + 12, row * HEIGHT + 12
        picture = Image.fromarray(render(scene)).resize((128 * ZOOM, 128 * ZOOM), Image.Resampling.BICUBIC)
        sheet.paste(picture, (left, top))
        lines = []
        for question in _questions(scene, rng):
            text = question.prompt.split(" answer ")[0].replace(" ?", "?").replace(" . ", ".")
            if question.options:
                lines.append(text.split("? ")[0] + "?")
                text = "   " + text.split("? ")[1]
            lines.append(f"{text}  {question.answer}")
        for number, line in enumerate(lines):
            draw.text((left, top + 128 * ZOOM + 6 + number * LINE), line, fill="black", font=face)
    return sheet


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet().save(path, optimize=True)
