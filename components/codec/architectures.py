"""Which classes an architecture consists of: its sizes, its networks, and its entropy model in integers.

Every architecture has the interface of `Elic` and `ExactElic`, except that DCAE's entropy model runs in float64
(`dcae_wire.py`).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from components.codec.bands import InBands
from components.codec.config import CodecConfig, DcaeConfig
from components.codec.dcae import Dcae
from components.codec.elic import Elic
from components.codec.elic2022 import Elic2022, Elic2022Config
from components.codec.exact_elic import ExactElic
from components.codec.exact_elic2022 import ExactElic2022

_ARCHITECTURES = {
    "elic": (CodecConfig, Elic, ExactElic),
    "dcae": (DcaeConfig, Dcae, None),
    "elic2022": (Elic2022Config, Elic2022, ExactElic2022),
}


AnyConfig = CodecConfig | DcaeConfig | Elic2022Config


def read_config(sizes: Mapping[str, Any]) -> AnyConfig:
    """The sizes in a codec's `config.json`.

    Raises:
        ValueError: no such architecture, or sizes that it cannot have.
    """
    name = sizes.get("architecture", "elic")
    if name not in _ARCHITECTURES:
        raise ValueError(f"there is no architecture {name!r}")
    return _ARCHITECTURES[name][0](**sizes)


def build(config: AnyConfig) -> nn.Module:
    """Networks of these sizes, untrained."""
    return _ARCHITECTURES[config.architecture][1](config)


def exact_entropy(model: nn.Module, device: torch.device | str = "cpu") -> InBands | ExactElic2022:
    """The model's entropy model in integers.

    Raises:
        CotamError: weights that cannot be computed with exactly.
    """
    for _, model_class, exact_class in _ARCHITECTURES.values():
        if isinstance(model, model_class) and exact_class is not None:
            exact = exact_class(model, device)
            return InBands(exact) if isinstance(exact, ExactElic) else exact
    raise TypeError(f"{type(model).__name__} has no entropy model in integers")
