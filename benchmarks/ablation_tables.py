"""Writes what a run of the ablations found into the docs: the tables of docs/ablations.md, and the page and the numbers
behind them as docs/ablations/index.html and verdicts.json.

    .venv/bin/python -m benchmarks.ablation_tables

What a run with `profile=world` found of images of several tiles goes there too, and is kept as
docs/ablations/world.json.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

from components.errors import CotamError
from components.evaluation.variant_results import RATE
from components.files import atomic_file, read_json
from components.paths import ROOT
from components.reporting.ablation_summary import CELLS, cells, gains, worded
from components.reporting.marks import fill

FOUND = ROOT / "results/ablations"
WORLD = ROOT / "results/runs/ablations-world/ablations"
TILES = ("C13",)
"""The claims that are about images of several tiles."""
PAGE = ROOT / "docs/ablations.md"
KEPT = ROOT / "docs/ablations"


def claims_table(found: dict[str, Any], only: tuple[str, ...] = ()) -> str:
    """Markdown: a row per comparison of all claims, or of some; the claim's verdict stands in its first."""
    lines = [f"| claim | {' | '.join(CELLS)} |", "| --- " * (1 + len(CELLS)) + "|"]
    for claim in found["claims"]:
        if only and claim["id"] not in only:
            continue
        for place, one in enumerate(claim["comparisons"]):
            head = f"**{claim['id']}: {worded(claim)}**" if place == 0 else ""
            lines.append(f"| {' | '.join((head, *cells(one)))} |")
    return "\n".join(lines)


def variants_table(found: dict[str, Any]) -> str:
    """Markdown: a row per variant that was measured; where it was trained several times, each training's BD-rate."""
    lines = [
        "| variant | seeds | BD-rate of the mean score against the codec alone | of each seed | points at equal rate |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for name, entry in found["variants"].items():
        if entry[RATE]:
            rate, points = gains(entry)
            seeds = entry["by_seed"].values()
            each = ", ".join(f"{one[RATE]['mean']['value']:+.1f}" for one in seeds if one[RATE])
            lines.append(f"| `{name}` | {', '.join(map(str, entry['seeds']))} | {rate} | {each} | {points} |")
    return "\n".join(lines)


def document(results: Path = FOUND, page: Path = PAGE, kept: Path = KEPT) -> None:
    """Fill the page, and keep the run's own page and numbers.

    Raises:
        CotamError: there are no verdicts, or the page has no place for the tables.
    """
    files = ("verdicts.json", "index.html")
    if not all((results / name).is_file() for name in files):
        raise CotamError(f"{results} has no verdicts; run `prefect deployment run ablations/local --watch` first.")
    found = read_json(results / "verdicts.json")
    fill(page, {"CLAIMS": claims_table(found), "VARIANTS": variants_table(found)})
    kept.mkdir(exist_ok=True)
    for name in files:
        with atomic_file(kept / name) as temporary:
            shutil.copyfile(results / name, temporary)


def document_tiles(results: Path = WORLD, page: Path = PAGE, kept: Path = KEPT) -> None:
    """Fill the page's tables about images of several tiles, and keep the numbers.

    Raises:
        CotamError: there are no verdicts, or the page has no place for the tables.
    """
    if not (results / "verdicts.json").is_file():
        run = "prefect deployment run ablations/local --watch --param profile=world"
        raise CotamError(f"{results} has no verdicts; run `{run}` first.")
    found = read_json(results / "verdicts.json")
    fill(page, {"TILES": f"{variants_table(found)}\n\n{claims_table(found, TILES)}"})
    with atomic_file(kept / "world.json") as temporary:
        shutil.copyfile(results / "verdicts.json", temporary)


if __name__ == "__main__":
    try:
        document()
        if WORLD.is_dir():
            document_tiles()
    except CotamError as error:
        sys.exit(f"ablation_tables: {error}")
