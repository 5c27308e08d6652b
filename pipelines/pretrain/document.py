"""Write the tables of docs/models.md from the shipped folders themselves.

    python -m pipelines.pretrain.document

What stands between the MODELS marks is replaced: a row per model, read from its files, and the micro MLLMs' scores from
MLLM.metrics.json beside their folders. tests/test_pretrained.py fails when the page and the folders disagree.
"""

from math import prod
from pathlib import Path

from safetensors import safe_open

from components.files import atomic_write, read_json
from components.paths import PRETRAINED, ROOT
from components.reporting.marks import between
from components.scenes.graph import NORMAL_SIZE

PAGE = ROOT / "docs/models.md"
LEVELS = ("low", "high", "cross")


def tables(pretrained: Path = PRETRAINED) -> str:
    """Markdown: what ships, then how well each MLLM sees."""
    parts = ["| folder | class | parameters | size |", "| --- | --- | ---: | ---: |"]
    for file in sorted(pretrained.glob("*/*/model.safetensors")):
        parts.append(_row(file.parent, pretrained))
    for metrics in sorted(pretrained.glob("mllm/*.metrics.json")):
        parts += ["", *scores(metrics.name.removesuffix(".metrics.json"), read_json(metrics))]
    return "\n".join(parts)


def page(text: str, pretrained: Path = PRETRAINED) -> str:
    """The text of the page with its tables made new. Raises CotamError when a mark is missing."""
    return between(text, "MODELS", tables(pretrained), PAGE)


def _row(folder: Path, pretrained: Path) -> str:
    config = read_json(folder / "config.json")
    name = config.get("architectures", [config.get("model_type", "codec")])[0]
    with safe_open(folder / "model.safetensors", framework="np") as weights:
        shapes = [weights.get_slice(key).get_shape() for key in weights.keys()]  # noqa: SIM118 (not a mapping)
    parameters = sum(prod(shape) for shape in shapes)
    megabytes = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    where = folder.relative_to(pretrained.parent)
    return f"| `{where}` | `{name}` | {parameters / 1e6:.2f} M | {megabytes:.1f} MB |"


def scores(name: str, metrics: dict) -> list[str]:
    """Tables of one MLLM's scores: one for each detail of scenes and one for clips, with a column per style."""
    tables = {1: metrics} | {int(detail): table for detail, table in metrics.get("detail", {}).items()}
    lines = []
    for detail, table in tables.items():
        size = f"{NORMAL_SIZE * detail} pixels"
        what = "scenes" if detail == 1 else f"scenes of {size} with {detail} times the detail"
        lines += [
            *([""] if lines else []),
            f"`{name}` on {metrics['scenes']} {what} of the {metrics['split']} split in each style:",
            "",
            *_table(table, "" if detail == 1 else f" at {size}"),
        ]
    if "clips" in metrics:
        what = f"`{name}` on {metrics['clip_count']} moving scenes of the {metrics['split']} split in each style:"
        lines += ["", what, "", *_table(metrics["clips"], " of clips")]
    return lines


def _table(table: dict, where: str) -> list[str]:
    styles = [style for style in ("train", "bench") if style in table]
    rows = [("all questions", lambda scores: scores["all"])]
    rows += [(level, lambda scores, level=level: scores["level"][level]) for level in LEVELS]
    rows += [
        ("with another scene's image", lambda scores: scores["other_image"]),
        ("questions only, no image", lambda scores: scores["question_only"]),
    ]
    if all("attention_auc" in table[style] for style in styles):
        rows.append(("attention AUC of the guidance tower", lambda scores: scores["attention_auc"]))
    return [
        f"| | {' | '.join(f'{style} style' for style in styles)} |",
        f"| --- |{' ---: |' * len(styles)}",
        *(f"| {label} | {' | '.join(f'{value(table[style]):.3f}' for style in styles)} |" for label, value in rows),
        "",
        _missed({style: table[style]["goals"] for style in styles}, where),
    ]


def _missed(goals: dict[str, dict[str, bool]], where: str) -> str:
    missed = [
        f"`{name}` in {style} style{where}" for style, found in goals.items() for name, met in found.items() if not met
    ]
    if not missed:
        return "All goals (below) are reached."
    return f"**It falls short of its goals** (below): {', '.join(missed)}."


def main() -> None:
    atomic_write(PAGE, page(PAGE.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
