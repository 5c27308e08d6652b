"""What shape a codec has: the JSON beside its weights, as a typed value.

One class describes the micro ELIC that ships and a full-width one of the same shape; another the micro DCAE and the
published one; only the numbers differ. The ELIC that others publish has a shape of its own: `elic2022.Elic2022Config`.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

STRIDE = 16  # image pixels per latent position, in both directions
HYPER_STRIDE = 4  # latent positions per position of the hyper latent
LAMBDAS = (0.0128, 0.0064, 0.0032, 0.0016, 0.0008, 0.0004, 0.0002, 0.0001, 0.00005, 0.00002)  # quality 0 .. 9


def latent_size(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the latent of an image."""
    return -(-height // STRIDE), -(-width // STRIDE)


def check_sizes(groups: tuple[int, ...], latent_channels: int, lambdas: tuple[float, ...]) -> None:
    """Raise ValueError unless the groups make up the latent and the lambdas fall."""
    if sum(groups) != latent_channels:
        raise ValueError(f"groups {groups} do not add up to latent_channels {latent_channels}")
    if list(lambdas) != sorted(lambdas, reverse=True) or lambdas[-1] <= 0:
        raise ValueError("lambdas must be positive and fall from quality 0 on")


class CodecConfig(BaseModel):
    """Sizes of a variable-rate ELIC (paper, A.3; He et al. 2022).

    The defaults are the micro codec: 1.34 million parameters, 2.7 MB as float16.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: Literal["elic"] = "elic"
    widths: tuple[int, int, int] = (32, 64, 72)  # channels at 1/2, 1/4 and 1/8 of the image's size
    latent_channels: int = 192
    groups: tuple[int, ...] = (8, 8, 16, 32, 128)  # uneven channel groups, coded in this order
    blocks: int = 2  # residual bottleneck blocks per resolution
    kernel: int = 4  # of the strided convolutions
    hyper_channels: int = 32
    side_channels: int = 64  # what the hyperprior tells the entropy model
    context_channels: int = 32  # what a group's anchors tell its other half
    context_kernel: int = 3
    hidden_channels: int = 96  # of the parameter aggregation
    lambdas: tuple[float, ...] = LAMBDAS
    fine_entropy: bool = False  # finer weights and means in the entropy model, escapes in streams (docs/bitstream.md)

    @model_validator(mode="after")
    def _consistent(self) -> "CodecConfig":
        check_sizes(self.groups, self.latent_channels, self.lambdas)
        return self

    @property
    def qualities(self) -> int:
        return len(self.lambdas)


FULL_ELIC = CodecConfig(
    widths=(192, 192, 192),
    latent_channels=320,
    groups=(16, 16, 32, 64, 192),
    blocks=3,
    kernel=5,
    hyper_channels=192,
    side_channels=384,
    context_channels=384,
    context_kernel=5,
    hidden_channels=640,
    fine_entropy=True,
)


class DcaeConfig(BaseModel):
    """Sizes of a variable-rate DCAE (Lu et al. 2025).

    The defaults are the micro codec: 1.48 million parameters, 3.0 MB as float16.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: Literal["dcae"] = "dcae"
    widths: tuple[int, int, int] = (24, 48, 64)  # channels at 1/2, 1/4 and 1/8 of the image's size
    latent_channels: int = 160
    groups: tuple[int, ...] = (16, 16, 32, 48, 48)  # slices, coded in this order
    blocks: int = 1  # residual bottleneck blocks per resolution
    kernel: int = 4  # of the strided convolutions
    swin: tuple[int, int, int] = (1, 1, 2)  # Swin blocks per resolution
    heads: tuple[int, int, int] = (8, 16, 16)  # channels per head, at each resolution
    window: int = 8
    mlp_ratio: int = 2  # channels inside a Swin block's second half, value and gate together
    hyper_channels: int = 32  # of z
    hyper_width: int = 32  # of the networks around it
    hyper_window: int = 4
    hyper_head: int = 16
    hyper_mlp_ratio: int = 2
    side_channels: int = 32  # what the hyperprior tells about means, and again about scales
    prior_channels: int = 32  # what the dictionary tells of each slice
    dictionary: int = 64  # entries
    dictionary_heads: int = 2
    dictionary_head: int = 16  # channels per head
    dictionary_mlp_ratio: int = 2
    parameter_channels: tuple[int, int] = (48, 32)  # inside the networks for means, scales and residuals
    parameter_kernels: tuple[int, int, int] = (1, 3, 1)
    centre: float = 0.5  # subtracted from the image
    log_scales: bool = True  # the networks tell logarithms of scales
    learned_density: bool = False  # z has a learned density, not a Gaussian per quality
    lambdas: tuple[float, ...] = LAMBDAS

    @model_validator(mode="after")
    def _consistent(self) -> "DcaeConfig":
        check_sizes(self.groups, self.latent_channels, self.lambdas)
        return self

    @property
    def qualities(self) -> int:
        return len(self.lambdas)


FULL_DCAE = DcaeConfig(
    widths=(96, 144, 256),
    latent_channels=320,
    groups=(64, 64, 64, 64, 64),
    blocks=3,
    kernel=5,
    swin=(1, 2, 12),
    heads=(8, 16, 32),
    mlp_ratio=4,
    hyper_channels=192,
    hyper_width=192,
    hyper_head=32,
    hyper_mlp_ratio=4,
    side_channels=320,
    prior_channels=320,
    dictionary=128,
    dictionary_heads=20,
    dictionary_head=32,
    dictionary_mlp_ratio=4,
    parameter_channels=(224, 128),
    parameter_kernels=(3, 3, 3),
    centre=0.0,
    log_scales=False,
    learned_density=True,
)
"""The published network, for ten rates."""
