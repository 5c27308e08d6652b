"""What the two stages of the adapter's training share: everything but the loss.

Codec and tower are frozen; only the adapter learns (paper, sections 3.3 and 4.1). A stage reads shards, trains, and
measures both losses on the held-out images, with and without the adapter.
"""

import shutil
from contextlib import nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from components.adapter import AdapterConfig, LatentAdapter
from components.adapter.losses import high_loss, low_loss
from components.codec.codec import Codec
from components.codec.transforms import VariableRate
from components.data.reader import ShardReader
from components.files import others_by_use, sha256_tree, write_json
from components.paths import instance_name
from components.placing import best_device
from components.step_inputs import StepInputs
from components.training.feature_store import FeatureStore, Plan, store_key
from components.training.loop import Examples, Loss, Schedule, train
from components.training.tower import training_tower
from components.training.units import measure_units
from components.training.unseen import WithoutPictures
from components.training.validation import BEFORE, validate_by_quality
from components.vision import Tower, load_tower

OF_VARIANTS = 3
"""How many stores of other settings are left while variants are trained, which take turns in using them."""


class AdapterStage:
    """The frozen parts of one instance (codec and MLLM) and the features that they give."""

    def __init__(self, inputs: StepInputs):
        self.inputs = inputs
        self.device = best_device()
        self.codec = Codec.from_pretrained(inputs.codec_weights, self.device, fast=None)
        self.tower = training_tower(load_tower(inputs.mllm_weights, bf16=True))

    @cached_property
    def store(self) -> FeatureStore | WithoutPictures:
        """Filled when it is first asked for."""
        inputs, params = self.inputs, self.inputs.params
        # Where it guides the stage `rate` (components/evaluation/coding.py): the maps are those of real streams.
        guide = load_tower(inputs.tower_weights).to(self.device)
        plan = Plan(
            seed=params.seed,
            qualities=params.adapter.qualities,
            draws=params.adapter.draws,
            held_out=params.adapter.held_out,
            layers=params.guidance.layers,
            grid=params.guidance.grid,
            k=params.guidance.k,
            levels=params.guidance.levels,
        )
        reader = ShardReader(inputs.paths.shards, params.seed)
        # Another machine may have other transforms, which decode other pictures.
        origin = {"shards": reader.fingerprint, "transforms": self.codec.arithmetic} | {
            name: sha256_tree(folder)
            for name, folder in (
                ("codec", inputs.codec_weights),
                ("guide", inputs.tower_weights),
                ("tower", inputs.mllm_weights),
            )
        }
        # Beside the stages' own work folders: both stages read the same store.
        stores = inputs.paths.work / "features" / instance_name(inputs.codec, inputs.mllm)
        folder = stores / store_key(plan, origin)
        # Of other settings, weights or code; each may take gigabytes.
        for other in others_by_use(folder)[OF_VARIANTS if inputs.run else 0 :]:
            shutil.rmtree(other, ignore_errors=True)
        store = FeatureStore(folder, reader, plan, self.codec, guide, self.tower, workers=params.threads)
        folder.touch()
        return WithoutPictures(store) if inputs.run and inputs.run.receive == "adapter" else store

    def new_adapter(self) -> LatentAdapter:
        """An untrained adapter in the units of the store's latents; the same for the same seed."""
        torch.manual_seed(self.inputs.params.seed)
        settings = self.inputs.params.adapter
        adapter = LatentAdapter(adapter_config(self.codec, self.tower, settings), silent=settings.start == "silent")
        adapter.set_scales(*measure_units(self.store.sample(), self.tower.grid, self.codec.config.qualities))
        return adapter

    def fit(
        self, adapter: LatentAdapter, loss: Loss, examples: Examples, schedule: Schedule, out: Path, checkpoint: Path
    ) -> None:
        """Train the adapter in place, from the checkpoint if there is one, validate, and write the stage's results."""
        last = train(adapter, loss, examples, schedule, checkpoint=checkpoint, log=self.inputs.log)
        measured = validate(adapter, self.tower, self.store)
        adapter.trained_for(self.codec.model_id, self.tower.identity).save(out / "adapter")
        write_json(out / "metrics.json", {"training": last, "validation": measured})


class Sizes(Protocol):
    """What the settings say of an adapter."""

    width: int
    heads: int
    blocks: int


def adapter_config(codec: Codec | VariableRate, tower: Tower, sizes: Sizes) -> AdapterConfig:
    """The sizes of an adapter between a codec (or its networks) and a tower."""
    return AdapterConfig(
        latent_channels=codec.config.latent_channels,
        feature_dim=tower.width,
        grid=tower.grid,
        qualities=codec.config.qualities,
        width=sizes.width,
        heads=sizes.heads,
        blocks=sizes.blocks,
    )


def residual(adapter: nn.Module, batch: dict[str, Tensor], tower: Tower) -> Tensor:
    """A(y^) of a batch of the store, whose images have the tower's own size."""
    sample = partial(tower.geometry.sample_latent, image_size=tower.geometry.output_size, grid=tower.grid)
    # As for the tower (tower.py): on a CPU the fused attention costs more than it saves.
    kernel = sdpa_kernel(SDPBackend.MATH) if batch["y_hat"].device.type == "cpu" else nullcontext()
    with kernel:
        return adapter(batch["y_hat"], batch["quality_map"], sample)


def validate(
    adapter: LatentAdapter, tower: Tower, store: FeatureStore | WithoutPictures
) -> dict[str, dict[str, float]]:
    """L_low and L_high on the held-out images, per base quality, with the adapter and without.

    Returns:
        {quality: {low, low_unadapted, low_ratio, high, high_unadapted, high_ratio}}; a ratio is adapted / unadapted.
    """
    device = next(tower.parameters()).device
    adapter.to(device).eval()

    def measure(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        found = {}
        added = residual(adapter, batch, tower)
        for suffix, extra in (("", added), (BEFORE, torch.zeros_like(added))):
            features = tower.forward_from_patches(batch["decoded"] + extra).consumed_BND
            found[f"low{suffix}"] = low_loss(batch["patches"], batch["decoded"], extra)
            found[f"high{suffix}"] = high_loss(batch["features"], features)
        return found

    measured = validate_by_quality(store, store.plan.validation_qualities, measure, device)
    adapter.train()
    return measured
