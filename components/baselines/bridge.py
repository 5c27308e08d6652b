"""Bridge: a transform-neck carries the decoded latent past a tower's first layers (Kao et al., ICLR 2025).

Kao et al., "Bridging compressed image latents and multimodal large language models", decode no picture. A light neck
(their section 3.2: linear projection, class token and positions, layer norm, one transformer block) turns the latent
into tokens with which the vision encoder is entered after its first layers. Neck, and codec where it learns too, are
trained on a surrogate loss (section 3.3) that needs the vision encoder alone, not the language model:

    L_ce   = -log softmax_k(s cos(v(y^), t_k))[label]      v: the encoder's image embedding, t_k: class k's in words
    L_dist = |F(x) - F(y^)|^2                              F: the features of the encoder

first L_ce, then both, then L_dist alone. d1 leaves the codec as it is; d3 trains it for machines alone, on the rate and
the surrogate loss.

What is ours: one neck serves all qualities, so it is told the quality of each place; it reads latents in units of
their channels, as our adapter does, and speaks in units of the hidden state that it stands for (without them most of
its training went into their scale); F are the token features that the MLLM consumes (as in our L_high), where the
published code compares the projected class embeddings, which an MLLM never reads.
"""

from functools import partial
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, model_validator
from torch import Tensor, nn

from components.adapter.latent_adapter import OrdinalEmbedding, Sampler, fill_grid
from components.weights import load_module, save_safetensors


class NeckConfig(BaseModel):
    """Sizes of a neck; `layer` is the tower's hidden state that its tokens stand for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    latent_channels: int  # of the codec
    feature_dim: int  # D, the width of the tower
    grid: tuple[int, int]  # rows and columns of the tower's patches
    qualities: int = 10
    layer: int = 2  # the first two of the tower's layers are skipped
    heads: int = 4

    @model_validator(mode="after")
    def _consistent(self) -> "NeckConfig":
        if self.feature_dim % self.heads:
            raise ValueError(f"width {self.feature_dim} cannot be shared by {self.heads} heads")
        return self


class TransformNeck(nn.Module):
    """Decoded latents -> the tower's tokens after its first `layer` layers, class token first."""

    def __init__(self, config: NeckConfig):
        super().__init__()
        self.config = config
        width, (rows, columns) = config.feature_dim, config.grid
        self.register_buffer("latent_mean_C", torch.zeros(config.latent_channels))
        self.register_buffer("latent_std_C", torch.ones(config.latent_channels))
        self.register_buffer("output_mean_D", torch.zeros(width))
        self.register_buffer("output_std_D", torch.ones(width))
        self.projection = nn.Linear(config.latent_channels, width)
        self.quality = OrdinalEmbedding(config.qualities, width)
        self.class_token_D = nn.Parameter(torch.randn(width) * width**-0.5)
        self.position_TD = nn.Parameter(torch.randn(1 + rows * columns, width) * width**-0.5)
        self.norm = nn.LayerNorm(width)
        self.block = nn.TransformerEncoderLayer(
            width, config.heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )

    def set_scales(
        self, latent_mean_C: Tensor, latent_std_C: Tensor, output_mean_D: Tensor, output_std_D: Tensor
    ) -> None:
        """Fix what a unit means: mean and deviation of each channel of latents, and of each feature of the tower's
        hidden state `layer`, measured on training data."""
        self.latent_mean_C.copy_(latent_mean_C)
        self.latent_std_C.copy_(latent_std_C.clamp(min=1e-3 * float(latent_std_C.max())))
        self.output_mean_D.copy_(output_mean_D)
        self.output_std_D.copy_(output_std_D.clamp(min=1e-3 * float(output_std_D.max())))

    def forward(self, y_hat_BCHW: Tensor, quality_map_BHW: Tensor, sample: Sampler | None = None) -> Tensor:
        """Tokens (B, 1 + N, D) for `ClipTower.states_from`.

        Args:
            y_hat_BCHW: float, decoded latents after the inverse gain.
            quality_map_BHW: int64, the quality at every latent position.
            sample: the geometry that the tower's pixels would go through (`Geometry.sample_latent`); None where the
                image fills the tower's input exactly.
        """
        unit_BCHW = (y_hat_BCHW - self.latent_mean_C[:, None, None]) / self.latent_std_C[:, None, None]
        features_BDHW = self.projection(unit_BCHW.movedim(1, 3)).movedim(3, 1) + self.quality(quality_map_BHW)
        sample = sample or partial(fill_grid, grid=self.config.grid)
        patches_BND = sample(features_BDHW).flatten(2).transpose(1, 2)
        class_B1D = self.class_token_D.to(patches_BND.dtype).expand(len(patches_BND), 1, -1)
        tokens_BTD = self.block(self.norm(torch.cat([class_B1D, patches_BND], 1) + self.position_TD))
        return tokens_BTD * self.output_std_D + self.output_mean_D

    def save(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors`."""
        save_safetensors(folder, self.state_dict(), self.config.model_dump(mode="json"))

    @classmethod
    def load(cls, folder: str | Path) -> "TransformNeck":
        """Read what `save` wrote, in evaluation mode, on the CPU.

        Raises:
            CotamError: the folder is not a neck's.
        """
        return load_module(folder, lambda config: cls(NeckConfig(**config)), "a transform-neck")
