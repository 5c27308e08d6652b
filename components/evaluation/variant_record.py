"""What a variant's scores.json says of how its numbers were made: by which settings and which models."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.config_variants import METHODS
from components.files import read_json, sha256_tree

if TYPE_CHECKING:
    from components.variants import Run

SCHEMA = 2
"""1, or none: without `made_of`, `data` and `scenes`, and `adapter` only where the variant has CoTAM's adapter."""


def variant_record(run: "Run", seen: Mapping[str, Any]) -> dict[str, Any]:
    """The head of a run's scores.json, as JSON values.

    Args:
        run: a variant with a training seed.
        seen: the settings as the run has them (`components.variants.settings_of`), its entry under `variants`; of the
            sections, those that it uses.

    Returns:
        {schema, variant, seed, method, receive, codec, mllm, changes, settings}. `changes` is the entry in params.yaml;
        `settings` are the sections that count: `guidance` where files have maps; `adapter`, or what the method reads of
        it, and `baselines` where the variant trains such a thing itself (with `adapter_of` another's record says how it
        was trained); `data` and `scenes` where anything was trained.
    """
    method, changes = METHODS[run.method], seen["variants"][run.variant]
    settings = {}
    if run.guided:
        settings["guidance"] = seen["guidance"]
    if run.model and "adapter_of" not in changes:
        # CoTAM-FT goes on from an adapter that was trained by the keys that it does not read itself.
        keys = seen["adapter"] if method.adapter else method.adapter_keys
        settings["adapter"] = {key: seen["adapter"][key] for key in keys}
    if run.model:
        settings |= {section: seen[section] for section in ("data", "scenes")}
    if method.baselines:
        settings["baselines"] = {part: seen["baselines"][part] for part in method.baselines}
    head = {key: getattr(run, key) for key in ("variant", "seed", "method", "receive", "codec", "mllm")}
    return json.loads(json.dumps({"schema": SCHEMA, **head, "changes": changes, "settings": settings}))


def made_of(run: "Run", root: Path) -> dict[str, Any]:
    """SHA-256 of the models that a run uses, as they lie in a checkout.

    Returns:
        {mllm, codec, tower, model}: `codec` but for a yardstick, `tower` where files have maps, and `model`, what was
        trained, by its folders' names. What does not lie there is left out.
    """
    weights = root / "data/weights.json"
    hashes = read_json(weights) if weights.is_file() else {}
    found = {"mllm": hashes.get("mllm", {}).get(run.mllm)}
    if METHODS[run.method].trains:
        found["codec"] = hashes.get("codec", {}).get(run.codec)
    if run.guided:
        found["tower"] = hashes.get("tower")
    if run.model:
        found["model"] = _folders(root / run.model)
    return {name: value for name, value in found.items() if value}


def is_of(content: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a scores.json is of these settings (`variant_record`); of an earlier schema, as far as it says them."""
    if content.get("schema", 1) < SCHEMA:
        wanted = _in_first_schema(wanted)
    return all(content.get(key) == value for key, value in wanted.items())


def agree(some: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    """Whether two answers of `made_of` name no two models for one thing; what one of them leaves out says nothing."""
    return all(some[name] == others[name] for name in some.keys() & others.keys())


def _in_first_schema(record: Mapping[str, Any]) -> dict[str, Any]:
    left_out = {"data", "scenes"} if METHODS[record["method"]].adapter else {"data", "scenes", "adapter"}
    settings = {section: values for section, values in record["settings"].items() if section not in left_out}
    return {key: value for key, value in record.items() if key != "schema"} | {"settings": settings}


def _folders(model: Path) -> dict[str, str]:
    if not model.is_dir():
        return {}
    return {folder.name: sha256_tree(folder) for folder in sorted(model.iterdir()) if folder.is_dir()}
