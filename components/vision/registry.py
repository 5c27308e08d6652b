"""Opening a vision tower by the `model_type` of its configuration: a tower alone, or the one inside an MLLM.

A family of towers is one class (`FAMILIES`). The tower of an MLLM is read out of the MLLM's own files (its language
model is not loaded), with the feature layer that its configuration names.
"""

from collections.abc import Callable
from pathlib import Path

import transformers
from safetensors import SafetensorError
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from components.errors import CotamError
from components.files import read_json
from components.vision.clip import ClipTower, clip_tower
from components.vision.geometry import Geometry
from components.vision.internvit import InternVitTower, hub_internvit_tower
from components.vision.reading import filled, tower_tensors
from components.vision.siglip import SiglipTower, siglip_tower
from components.vision.told import SENSELESS, not_as_read
from components.vision.tower import Tower
from components.weights import first_reason, no_weights, resolve

FAMILIES: dict[str, type[Tower]] = {
    "clip_vision_model": ClipTower,
    "siglip_vision_model": SiglipTower,
    "internvl_vision": InternVitTower,
}
"""By the `model_type` of the tower's own configuration, which is also what an MLLM's `vision_config` says."""


def tower_inside(folder: Path) -> Tower:
    """The tower of an MLLM in transformers' layout."""
    config = mllm_config(folder)
    family = FAMILIES[config.vision_config.model_type]
    model = filled(family.model_class(config.vision_config), tower_tensors(folder), folder)
    return family(model, Geometry.from_pretrained(folder), feature_layer=config.vision_feature_layer)


TOWERS: dict[str, Callable[[Path], Tower]] = {
    "clip": clip_tower,
    "siglip": siglip_tower,
    **{kind: family.open for kind, family in FAMILIES.items()},
    **dict.fromkeys(("llava", "llava_onevision", "internvl"), tower_inside),
    **dict.fromkeys(("intern_vit_6b", "internvl_chat"), hub_internvit_tower),
}


def load_tower(path_or_name: Path | str, bf16: bool = False) -> Tower:
    """Open the frozen tower in a folder (or of a Hugging Face name), in float32 on the CPU; `bf16`: see `Tower`.

    Raises CotamError when there is no such model, its files are damaged, or its family is not in `TOWERS`.
    """
    folder = resolve(path_or_name)
    model_type = model_type_of(folder)
    if model_type not in TOWERS:
        raise CotamError(f"{folder} holds a {model_type!r} model; a vision tower must be one of {', '.join(TOWERS)}.")
    if not any(folder.glob("*.safetensors")):
        raise no_weights(folder)
    try:
        tower = TOWERS[model_type](folder)
    except (OSError, RuntimeError, KeyError, SafetensorError) as error:
        reason = first_reason(error)
        raise CotamError(f"The weights in {folder} are missing or damaged ({reason}); fetch them again.") from error
    except SENSELESS as error:
        raise CotamError(
            f"No tower can be built as config.json and preprocessor_config.json in {folder} say "
            f"({first_reason(error)}); fetch both again."
        ) from error
    tower.bf16 = bf16
    return tower


def mllm_config(folder: Path) -> PreTrainedConfig:
    """The configuration of an MLLM in transformers' layout, before anything else of it is read.

    Raises:
        CotamError: its tower is not in `FAMILIES`, or transformers does not know its language model or a value.
    """
    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, KeyError, *SENSELESS) as error:
        told = read_json(folder / "config.json")
        _check_tower(_kind_of(told.get("vision_config")), folder)
        language, version = _kind_of(told.get("text_config")), f"transformers {transformers.__version__}"
        if language is not None and language not in CONFIG_MAPPING:
            raise CotamError(
                f"{folder} speaks through a {language!r}, which {version} does not know; install a version that does, "
                "or name another MLLM."
            ) from error
        raise not_as_read(folder / "config.json", error) from error
    _check_tower(config.vision_config.model_type, folder)
    return config


def _kind_of(part: object) -> str | None:
    return part.get("model_type") if isinstance(part, dict) else None


def _check_tower(kind: str | None, folder: Path) -> None:
    if kind is not None and kind not in FAMILIES:
        raise CotamError(
            f"{folder} sees through a {kind!r}; a tower must be one of {', '.join(FAMILIES)}: name another MLLM."
        )


def model_type_of(folder: Path) -> str:
    """The `model_type` in config.json, read as it stands: transformers does not know those of the Hub's own code.

    Raises CotamError when there is none.
    """
    if not (folder / "config.json").is_file():
        raise CotamError(f"{folder} is not a Hugging Face model: it has no config.json.")
    told = read_json(folder / "config.json")
    if not isinstance(told, dict) or not isinstance(told.get("model_type"), str):
        raise CotamError(f"{folder / 'config.json'} names no model_type; it is no Hugging Face model's.")
    return told["model_type"]
