"""What the two stages of the adapter's training share: everything but the loss.

Codec and tower are frozen; only the adapter learns (paper, sections 3.3 and 4.1). A stage reads shards, trains, and
measures both losses on the held-out images, with and without the adapter.
"""

import shutil
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from components.adapter import AdapterConfig, LatentAdapter
from components.adapter.losses import high_loss, low_loss
from components.codec.codec import Codec
from components.data.reader import ShardReader
from components.files import sha256_tree, write_json
from components.paths import instance_name
from components.step_inputs import StepInputs
from components.training.feature_store import FeatureStore, Plan, store_key
from components.training.loop import Loss, Schedule, train
from components.training.processes import together
from components.training.units import measure_units
from components.vision import ClipTower, load_tower

VALIDATION_BATCH = 64


class AdapterStage:
    """The frozen parts of one instance (codec and MLLM) and the features that they gave."""

    def __init__(self, inputs: StepInputs):
        self.inputs = inputs
        params = inputs.params
        self.codec = Codec.from_pretrained(inputs.codec_weights, fast=None)
        self.tower = training_tower(load_tower(inputs.mllm_weights, bf16=True))
        # On the CPU, as it guides an encoder (components/evaluation/coding.py): the maps are those of real streams.
        guide = load_tower(inputs.tower_weights)
        plan = Plan(
            seed=params.seed,
            qualities=params.adapter.qualities,
            draws=params.adapter.draws,
            held_out=params.adapter.held_out,
            layers=params.guidance.layers,
            grid=params.guidance.grid,
            k=params.guidance.k,
        )
        reader = ShardReader(inputs.paths.shards, params.seed)
        origin = {"shards": reader.fingerprint} | {
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
        _remove_others(folder)
        self.store = FeatureStore(folder, reader, plan, self.codec, guide, self.tower, workers=params.threads)

    def new_adapter(self) -> LatentAdapter:
        """A silent adapter in the units of the store's latents; the same for the same seed."""
        adapter_params = self.inputs.params.adapter
        torch.manual_seed(self.inputs.params.seed)
        adapter = LatentAdapter(
            AdapterConfig(
                latent_channels=self.codec.config.latent_channels,
                feature_dim=self.tower.width,
                grid=self.tower.grid,
                qualities=self.codec.config.qualities,
                width=adapter_params.width,
                heads=adapter_params.heads,
            )
        )
        adapter.set_scales(*measure_units(self.store.sample(), self.tower.grid, self.codec.config.qualities))
        return adapter

    def fit(self, adapter: LatentAdapter, loss: Loss, epochs: int) -> None:
        """Train, validate, and write the stage's results."""
        params, inputs = self.inputs.params.adapter, self.inputs
        schedule = Schedule(epochs, params.batch, params.learning_rate)
        checkpoint = inputs.work / "checkpoint.safetensors"
        last: dict[str, float] = {}

        def work() -> None:
            last.update(train(adapter, loss, self.store, schedule, checkpoint=checkpoint, log=inputs.log))

        together(work, min(inputs.params.threads, params.batch, len(self.store)), inputs.work / "meeting")
        measured = validate(adapter, self.tower, self.store)
        adapter.save(inputs.out / "adapter")
        write_json(inputs.out / "metrics.json", {"training": last, "validation": measured})


def training_tower(tower: ClipTower) -> ClipTower:
    """The tower on this process's device, with the attention that is fastest there."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        # On CPUs plain matrix products in bfloat16 are more than twice as fast as the fused attention.
        tower.model.set_attn_implementation("eager")
    return tower.to(device)


def _remove_others(folder: Path) -> None:
    """Remove the stores of earlier settings, weights or code: each may take gigabytes, and nobody asks for it again."""
    for other in folder.parent.iterdir() if folder.parent.is_dir() else ():
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)


def residual(adapter: nn.Module, batch: dict[str, Tensor], tower: ClipTower) -> Tensor:
    """A(y^) of a batch of the store, whose images have the tower's own size."""
    sample = partial(tower.geometry.sample_latent, image_size=tower.geometry.output_size, grid=tower.grid)
    # As for the tower above: on a CPU the fused attention costs more than it saves.
    kernel = sdpa_kernel(SDPBackend.MATH) if batch["y_hat"].device.type == "cpu" else nullcontext()
    with kernel:
        return adapter(batch["y_hat"], batch["quality_map"], sample)


@torch.no_grad()
def validate(adapter: LatentAdapter, tower: ClipTower, store: FeatureStore) -> dict[str, dict[str, float]]:
    """L_low and L_high on the held-out images, per base quality, with the adapter and without.

    Returns:
        {quality: {low, low_unadapted, low_ratio, high, high_unadapted, high_ratio}}; a ratio is adapted / unadapted.
    """
    device = next(tower.parameters()).device
    adapter.to(device).eval()
    measured = {}
    for quality in store.plan.validation_qualities:
        sums: dict[str, float] = {"low": 0, "low_unadapted": 0, "high": 0, "high_unadapted": 0}
        count = 0
        for batch in store.held_out(quality, VALIDATION_BATCH):
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            added = residual(adapter, batch, tower)
            for suffix, extra in (("", added), ("_unadapted", torch.zeros_like(added))):
                features = tower.forward_from_patches(batch["decoded"] + extra).consumed_BND
                number = len(features)
                sums[f"low{suffix}"] += number * low_loss(batch["patches"], batch["decoded"], extra).item()
                sums[f"high{suffix}"] += number * high_loss(batch["features"], features).item()
            count += number
        means: dict[str, Any] = {name: value / count for name, value in sums.items()}
        means |= {f"{kind}_ratio": means[kind] / max(means[f"{kind}_unadapted"], 1e-12) for kind in ("low", "high")}
        measured[str(quality)] = means
    adapter.train()
    return measured
