"""GPU memory that the paper's MLLMs need, by precision, computed from their shapes on the meta device.

    cotam bench mllm_memory [--json]          or: python benchmarks/mllm_memory.py --document

Nothing is fetched and nothing is run. Weights are parameters times bytes. One question needs the keys and values of its
image twice (the prefix, and the copy that the question continues), and, while the prefix is read, about two hidden
states, the two halves of a gated layer, and queries, keys and values of every token. What a GPU's libraries take for
themselves (about 1 GB) comes on top. `--document` writes the table into docs/mllms.md.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from components.environment import be_quiet
from components.files import atomic_write
from components.paths import ROOT
from components.reporting.marks import between

if TYPE_CHECKING:
    from components.mllm.family import Family

PAGE = ROOT / "docs/mllms.md"
PRECISIONS = {"float32": 4, "bfloat16": 2}
SEEN = {
    "336 x 336": ("image", (336, 336), 1),
    "1024 x 768": ("image", (768, 1024), 1),
    "32 frames": ("video", (360, 640), 32),
}
"""What one question is about: kind, height and width, how many."""


def measure(families: "Mapping[str, Family] | None" = None) -> dict[str, dict]:
    """For every MLLM its parameters, the tokens of what it may be shown, and bytes by precision.

    `families`: the MLLMs on the meta device, where they are there already.
    """
    from components.mllm.full_size import FULL_SIZE, tokens
    from components.mllm.visual import Kind

    found = {}
    for name, full in FULL_SIZE.items():
        family = families[name] if families else full.on_meta()
        parameters = sum(parameter.numel() for parameter in family.model.parameters())
        text = family.model.config.get_text_config()
        heads = text.num_attention_heads + 2 * text.num_key_value_heads
        head = text.hidden_size // text.num_attention_heads
        kept = 2 * text.num_hidden_layers * text.num_key_value_heads * head  # numbers per token
        working = 2 * text.hidden_size + 2 * text.intermediate_size + heads * head
        shown = {
            label: tokens(family, Kind(kind), size, count)
            for label, (kind, size, count) in SEEN.items()
            if kind in family.kinds
        }
        found[name] = {
            "hub": full.hub,
            "parameters": parameters,
            "tokens": shown,
            "bytes": {
                precision: {"weights": parameters * each}
                | {label: (parameters + count * (2 * kept + working)) * each for label, count in shown.items()}
                for precision, each in PRECISIONS.items()
            },
        }
    return found


def table(found: dict[str, dict]) -> str:
    """As Markdown, in GB (10^9 bytes)."""
    columns = ["weights", *SEEN]
    head = ["MLLM", "parameters", *(f"tokens, {label}" for label in SEEN), "precision", *(f"GB, {c}" for c in columns)]
    rule = ["---", *["---:"] * (1 + len(SEEN)), "---", *["---:"] * len(columns)]
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join(rule)} |"]
    for name, model in found.items():
        for precision, sizes in model["bytes"].items():
            gigabytes = [f"{sizes[column] / 1e9:.1f}" if column in sizes else "-" for column in columns]
            counts = [f"{model['tokens'][label]:,}" if label in model["tokens"] else "-" for label in SEEN]
            row = [f"`{name}`", f"{model['parameters'] / 1e9:.2f} B", *counts, precision, *gigabytes]
            lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def page(text: str, found: dict[str, dict]) -> str:
    """The document with the table in its place."""
    return between(text, "MEMORY", table(found), PAGE)


def main() -> int:
    """Compute and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="report as JSON")
    parser.add_argument("--document", action="store_true", help="write the table into docs/mllms.md")
    args = parser.parse_args()
    be_quiet()
    found = measure()
    print(json.dumps(found, indent=2) if args.json else table(found))
    if args.document:
        atomic_write(PAGE, page(PAGE.read_text(encoding="utf-8"), found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
