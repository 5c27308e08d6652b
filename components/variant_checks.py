"""What a variant asks of models and data that lie in the checkout, refused before anything runs if it is not there."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from PIL import features

from components import config
from components.config_variants import METHODS
from components.errors import CotamError
from components.files import read_json

SCENES = "data/scenes"
WITHOUT_CLASS = ("siglip_vision_model",)
"""Towers without a class token (components/vision, which is not imported here: it would take torch along)."""


def check_models(settings: config.Settings, chosen: Iterable[str], root: Path) -> None:
    """Refuse variants whose tower, pictures or Pillow cannot do what they ask; models that are not there pass.

    Args:
        settings: of all variants.
        chosen: names of those that are to run; others may ask for what is not there.
        root: of the checkout.

    Raises:
        CotamError: naming the first such variant and the key.
    """
    for name in dict.fromkeys(chosen):
        changed, mllm = settings.changed(name), settings.variants[name].mllm or settings.mllms[0]
        method = settings.variants[name].method
        for wrong in _wrong(method, changed, mllm, root):
            raise CotamError(f"params.yaml: variants.{name}.{wrong}.")


def _wrong(method: str, settings: dict[str, Any], mllm: str, root: Path) -> Iterator[str]:
    if method == "avif" and not features.check("avif"):
        yield "method is avif, but this Pillow was built without it; install Pillow from its wheel"
    reads = METHODS[method].baselines
    if "mllm_tuning" in reads and settings["data"]["source"] != SCENES:
        source = settings["data"]["source"]
        yield f"method is {method}, which learns from questions about drawn scenes, but data.source is {source}"
    described = root / settings["mllm"][mllm]["weights"] / "config.json"
    if not described.is_file():
        return
    model = read_json(described)
    tower = model.get("vision_config", {})
    if "bridge" in reads and tower.get("model_type") in WITHOUT_CLASS:
        yield f"method is {method}, whose neck makes a class token, but the tower of {mllm} has none"
    layers, width = tower.get("num_hidden_layers"), tower.get("hidden_size")
    if layers is None or width is None:
        return
    if METHODS[method].adapter and settings["adapter"]["warmup_layer"] > layers:
        yield f"adapter.warmup_layer is {settings['adapter']['warmup_layer']}, but the tower of {mllm} has {layers}"
    if "bridge" in reads:
        bridge, read = settings["baselines"]["bridge"], model.get("vision_feature_layer", -1) % (layers + 1)
        if bridge["layer"] >= read:
            yield f"baselines.bridge.layer is {bridge['layer']}, but {mllm} reads its tower's layer {read}"
        if width % bridge["heads"]:
            yield f"baselines.bridge.heads is {bridge['heads']}, which does not divide the tower's width, {width}"
