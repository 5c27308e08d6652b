"""What shape a codec has: the JSON beside its weights, as a typed value.

One class describes the micro codec that ships and a full-width one of the same shape; only the numbers differ.
The ELIC that others publish has a shape of its own: `elic2022.Elic2022Config`.
"""

from pydantic import BaseModel, ConfigDict, model_validator

STRIDE = 16  # image pixels per latent position, in both directions
HYPER_STRIDE = 4  # latent positions per position of the hyper latent
LAMBDAS = (0.0128, 0.0064, 0.0032, 0.0016, 0.0008, 0.0004, 0.0002, 0.0001, 0.00005, 0.00002)  # quality 0 .. 9


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

    architecture: str = "elic"
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
)
