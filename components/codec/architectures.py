"""Which classes an architecture consists of: its sizes, its networks, and its entropy model in integers.

Every architecture has the interface of `Elic` and `ExactElic`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from components.codec.bands import InBands
from components.codec.config import CodecConfig
from components.codec.elic import Elic
from components.codec.elic2022 import Elic2022, Elic2022Config
from components.codec.exact_elic import ExactElic
from components.codec.exact_elic2022 import ExactElic2022

_ARCHITECTURES = {
    "elic": (CodecConfig, Elic, ExactElic),
    "elic2022": (Elic2022Config, Elic2022, ExactElic2022),
}


def build(sizes: Mapping[str, Any]) -> nn.Module:
    """Networks with the sizes of a `config.json`, untrained.

    Raises:
        ValueError: no such architecture, or sizes that it cannot have.
    """
    name = sizes.get("architecture", "elic")
    if name not in _ARCHITECTURES:
        raise ValueError(f"there is no architecture {name!r}")
    config_class, model_class, _ = _ARCHITECTURES[name]
    return model_class(config_class(**sizes))


def exact_entropy(model: nn.Module, device: torch.device | str = "cpu") -> InBands | ExactElic2022:
    """The model's entropy model in integers.

    Raises:
        CotamError: weights that cannot be computed with exactly.
    """
    for _, model_class, exact_class in _ARCHITECTURES.values():
        if isinstance(model, model_class):
            exact = exact_class(model, device)
            return InBands(exact) if isinstance(exact, ExactElic) else exact
    raise TypeError(f"{type(model).__name__} is not a codec")
