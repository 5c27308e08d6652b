"""What kind of MLLM a folder holds, from its config.json alone: the report's claims about kinds ask (C8, C10).

Not in components/mllm, so that the step that hashes models does not depend on the code that runs them.
"""

from pathlib import Path
from typing import Any

from components.files import read_json

LLAVA = "llava"
"""The `model_type` of LLaVA-1.5."""
TILES = {LLAVA: False, "llava_onevision": True, "internvl": True, "internvl_chat": True}
"""By the `model_type` of config.json: whether the MLLM cuts a large image into tiles."""


def kind_of(folder: Path) -> dict[str, Any]:
    """`family` (the model_type), whether it `tiles`, the `side` of its tower's input in pixels, and the `layers` and
    the `width` of its language model; nothing of a folder that holds none of `TILES`, which whoever opens it will say.

    Raises:
        CotamError: its config.json is not JSON.
    """
    path = folder / "config.json"
    told = read_json(path) if path.is_file() else {}
    family = told.get("model_type") if isinstance(told, dict) else None
    if family not in TILES:
        return {}
    vision, language = told.get("vision_config", {}), told.get("text_config", told.get("llm_config", {}))
    if "image_size" not in vision or not {"hidden_size", "num_hidden_layers"} <= language.keys():
        from transformers import AutoConfig  # published files leave out what is its default (LLaVA-1.5-7B)

        config = AutoConfig.from_pretrained(folder)
        vision, language = config.vision_config.to_dict(), config.text_config.to_dict()
    size = vision["image_size"]
    return {
        "family": family,
        "tiles": TILES[family],
        "side": size if isinstance(size, int) else max(size),
        "layers": language["num_hidden_layers"],
        "width": language["hidden_size"],
    }
