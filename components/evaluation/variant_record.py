"""What a variant's scores.json says of how its numbers were made: by which settings, and which are its own."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from components.config_variants import METHODS

if TYPE_CHECKING:
    from components.variants import Run


def variant_record(run: "Run", seen: Mapping[str, Any]) -> dict[str, Any]:
    """The head of a run's scores.json, as JSON values.

    Args:
        run: a variant with a training seed.
        seen: the settings as the run has them (`components.variants.settings_of`), its entry under `variants`; of the
            sections, those that it uses.

    Returns:
        {variant, seed, method, receive, codec, mllm, changes, settings}. `changes` is the entry in params.yaml;
        `settings` are the sections that count: `guidance` where files have maps, `adapter` and `baselines` where the
        variant trains such a thing itself (with `adapter_of` another's record says how it was trained).
    """
    method, changes = METHODS[run.method], seen["variants"][run.variant]
    settings = {}
    if run.guided:
        settings["guidance"] = seen["guidance"]
    if method.adapter and run.receive != "picture" and "adapter_of" not in changes:
        settings["adapter"] = seen["adapter"]
    if method.baselines:
        settings["baselines"] = {part: seen["baselines"][part] for part in method.baselines}
    head = {key: getattr(run, key) for key in ("variant", "seed", "method", "receive", "codec", "mllm")}
    return json.loads(json.dumps({**head, "changes": changes, "settings": settings}))
