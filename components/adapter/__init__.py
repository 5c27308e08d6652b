"""The latent feature adapter and the multi-level fidelity loss (paper, section 3.3)."""

from components.adapter.latent_adapter import AdapterConfig, LatentAdapter

__all__ = ["AdapterConfig", "LatentAdapter"]
