"""Which classes an architecture consists of: its sizes, its networks, and its entropy model in integers.

Every architecture has the interface of `Elic` and `ExactElic`, except that DCAE's entropy model runs in float64
(`dcae_wire.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
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
from components.codec.modulation import ModulatedDcae, ModulatedDcaeConfig, ModulatedElic, ModulatedElicConfig

AnyConfig = CodecConfig | DcaeConfig | Elic2022Config


@dataclass(frozen=True)
class Architecture:
    """What an architecture consists of and what is written for it.

    Attributes:
        config: the class of its sizes.
        networks: the class of its networks.
        exact: the class of its entropy model in integers; None where it runs in float64 (`dcae_wire.py`).
        tiled: whether large images are cut into tiles and bands; else the whole image's features are needed at once.
        fast: whether it has transforms that round more (`fast.py`).
    """

    config: type[AnyConfig]
    networks: type[nn.Module]
    exact: type[ExactElic] | type[ExactElic2022] | None
    tiled: bool = False
    fast: bool = False


_ARCHITECTURES = {
    "elic": Architecture(CodecConfig, Elic, ExactElic, tiled=True, fast=True),
    "dcae": Architecture(DcaeConfig, Dcae, None),
    "elic2022": Architecture(Elic2022Config, Elic2022, ExactElic2022),
    # A Fourier transform sees the whole image, so tiles would change it.
    "elic-sfma": Architecture(ModulatedElicConfig, ModulatedElic, ExactElic),
    "dcae-sfma": Architecture(ModulatedDcaeConfig, ModulatedDcae, None),
}


def read_config(sizes: Mapping[str, Any]) -> AnyConfig:
    """The sizes in a codec's `config.json`.

    Raises:
        ValueError: no such architecture, or sizes that it cannot have.
    """
    name = sizes.get("architecture", "elic")
    if name not in _ARCHITECTURES:
        raise ValueError(f"there is no architecture {name!r}")
    return _ARCHITECTURES[name].config(**sizes)


def build(config: AnyConfig) -> nn.Module:
    """Networks of these sizes, untrained."""
    return architecture_of(config).networks(config)


def architecture_of(config: AnyConfig) -> Architecture:
    """The architecture of a codec with these sizes."""
    return _ARCHITECTURES[config.architecture]


def exact_entropy(model: nn.Module, device: torch.device | str = "cpu") -> InBands | ExactElic2022:
    """The model's entropy model in integers.

    Raises:
        CotamError: weights that cannot be computed with exactly.
        TypeError: the architecture's entropy model runs in float64.
    """
    architecture = architecture_of(model.config)
    if architecture.exact is None:
        raise TypeError(f"{type(model).__name__} has no entropy model in integers")
    exact = architecture.exact(model, device)
    return InBands(exact) if architecture.tiled else exact
