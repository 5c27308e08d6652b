"""What the decoded picture lost and the decoded latent still tells, said in the language of the vision tower.

The tower sees E(x^) + A(y^): the patch embeddings of the decoded image plus this adapter's output (paper, section 3.3).
One adapter serves all qualities and all quality maps. It starts by saying nothing: its last projection is zero.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from components.weights import load_module, save_safetensors

Sampler = Callable[[Tensor], Tensor]
"""Takes features (B, W, h, w) on the latent's grid to the tower's patch grid, (B, W, gh, gw)."""


class AdapterConfig(BaseModel):
    """Sizes of an adapter, and whom it was trained for.

    `width`, `heads`, `blocks` and `neighbourhood` are not given by the codec and the tower.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    latent_channels: int  # of the codec
    feature_dim: int  # D, the width of the tower
    grid: tuple[int, int]  # rows and columns of the tower's patches
    qualities: int = 10
    width: int = 256
    heads: int = 4
    neighbourhood: int = 3  # latent positions across which the in-projection looks
    blocks: int = 1  # transformer blocks, one after another; the paper's adapter has one
    codec: str | None = None  # `Codec.model_id` of the one whose latents it reads; None: not known
    tower: str | None = None  # `Tower.identity` of the one that it speaks to; None: not known

    @model_validator(mode="after")
    def _consistent(self) -> "AdapterConfig":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} cannot be shared by {self.heads} heads")
        if self.neighbourhood % 2 == 0:
            raise ValueError("neighbourhood must be odd")
        if self.blocks < 1:
            raise ValueError("an adapter has at least one block")
        return self


class OrdinalEmbedding(nn.Module):
    """A vector per quality, as a running sum of steps, so that a quality never trained speaks like its neighbour."""

    def __init__(self, qualities: int, width: int):
        super().__init__()
        self.steps_QW = nn.Parameter(torch.zeros(qualities, width))

    def forward(self, quality_map_BHW: Tensor) -> Tensor:
        # Not by indexing: the gradient of that is summed by several threads in whatever order they come.
        return F.embedding(quality_map_BHW, self.steps_QW.cumsum(0)).permute(0, 3, 1, 2)


class LatentAdapter(nn.Module):
    """One pre-norm transformer block (or several) between the decoded latent and the tower's patch embeddings.

    Latents are first brought to one scale (their channels differ by orders of magnitude), seen with the quality of
    their place, and sampled to the tower's grid, so that the block's cost does not depend on the image's size.
    """

    def __init__(self, config: AdapterConfig, silent: bool = True):
        """`silent`: the last projection is zero, so that training starts from what the decoded picture alone gives."""
        super().__init__()
        self.config = config
        rows, columns = config.grid
        self.register_buffer("latent_mean_C", torch.zeros(config.latent_channels))
        self.register_buffer("latent_std_C", torch.ones(config.latent_channels))
        self.register_buffer("output_std_D", torch.ones(config.feature_dim))
        self.register_buffer("quality_scale_Q", torch.ones(config.qualities))
        # A convolution's kernel kept as one matrix: Muon, which trains it, knows no other shape.
        self.in_projection = nn.Linear(config.latent_channels * config.neighbourhood**2, config.width)
        self.quality = OrdinalEmbedding(config.qualities, config.width)
        self.position_1WHW = nn.Parameter(torch.randn(1, config.width, rows, columns) * 0.02)
        self.block = _block(config)
        self.norm = nn.LayerNorm(config.width)
        self.out_projection = nn.Linear(config.width, config.feature_dim)
        if silent:
            nn.init.zeros_(self.out_projection.weight)
            nn.init.zeros_(self.out_projection.bias)
        # Made last, so that an adapter of one block starts as it always has.
        self.more_blocks = nn.Sequential(*(_block(config) for _ in range(config.blocks - 1)))

    def set_scales(
        self, latent_mean_C: Tensor, latent_std_C: Tensor, output_std_D: Tensor, quality_scale_Q: Tensor
    ) -> None:
        """Fix what one unit means, from measurements on training data.

        Args:
            latent_mean_C, latent_std_C: of each channel of the decoded latents.
            output_std_D: root mean square of E(x) - E(x^) in each feature, the size of what is to be said.
            quality_scale_Q: the same at each quality, in units of all; so that little is said where little was lost.
        """
        self.latent_mean_C.copy_(latent_mean_C)
        self.latent_std_C.copy_(latent_std_C.clamp(min=1e-3 * float(latent_std_C.max())))
        self.output_std_D.copy_(output_std_D)
        self.quality_scale_Q.copy_(quality_scale_Q)

    def forward(self, y_hat_BCHW: Tensor, quality_map_BHW: Tensor, sample: Sampler | None = None) -> Tensor:
        """What is to be added to the patch embeddings of the decoded image.

        Args:
            y_hat_BCHW: float, decoded latents after the inverse gain.
            quality_map_BHW: int64, the quality at every latent position.
            sample: the geometry that the tower's pixels went through (`Geometry.sample_latent`); None where the
                image fills the tower's input exactly.

        Returns:
            (B, N, D) float, N patches in row-major order.
        """
        unit_BCHW = (y_hat_BCHW - self.latent_mean_C[:, None, None]) / self.latent_std_C[:, None, None]
        features_BWHW = self._look_around(unit_BCHW) + self.quality(quality_map_BHW)
        sample = sample or partial(fill_grid, grid=self.config.grid)
        tokens_BNW = (sample(features_BWHW) + self.position_1WHW).flatten(2).transpose(1, 2)
        scale_BN1 = sample(self.quality_scale_Q[quality_map_BHW][:, None]).flatten(2).transpose(1, 2)
        return self.out_projection(self.norm(self.more_blocks(self.block(tokens_BNW)))) * self.output_std_D * scale_BN1

    def _look_around(self, unit_BCHW: Tensor) -> Tensor:
        """The in-projection of every position and its neighbours, (B, W, h, w)."""
        side = self.config.neighbourhood
        kernel_WCnn = self.in_projection.weight.unflatten(1, (self.config.latent_channels, side, side))
        return F.conv2d(unit_BCHW, kernel_WCnn, self.in_projection.bias, padding=side // 2)

    def trained_for(self, codec: str, tower: str | None) -> "LatentAdapter":
        """Itself, from now on the adapter of this codec (`Codec.model_id`) and this tower (`Tower.identity`)."""
        self.config = self.config.model_copy(update={"codec": codec, "tower": tower})
        return self

    def save(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors`."""
        config = self.config.model_dump(mode="json", exclude_none=True)
        if self.config.blocks == 1:
            del config["blocks"]  # so that an adapter from before there were more has the same bytes
        save_safetensors(folder, self.state_dict(), config)

    @classmethod
    def load(cls, folder: str | Path) -> "LatentAdapter":
        """Read what `save` wrote, in evaluation mode, on the CPU.

        Raises:
            CotamError: the folder is not an adapter's.
        """
        return load_module(folder, lambda config: cls(AdapterConfig(**config)), "an adapter")


def _block(config: AdapterConfig) -> nn.Module:
    return nn.TransformerEncoderLayer(
        config.width, config.heads, 4 * config.width, 0.0, "gelu", batch_first=True, norm_first=True
    )


def fill_grid(features_BWHW: Tensor, grid: tuple[int, int]) -> Tensor:
    """Stretch features over a grid (bilinear, averaging where it shrinks); as they are where the grid is theirs."""
    if features_BWHW.shape[-2:] == grid:
        return features_BWHW
    return F.interpolate(features_BWHW.float(), grid, mode="bilinear", antialias=True)
