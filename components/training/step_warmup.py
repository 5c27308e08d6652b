"""The first stage: what is near the tower's entrance comes first, so that the adapter grasps structure (paper, 4.1).

The paper's loss ends at the patch embeddings (`adapter.warmup_layer: 0`): the tower is not run at all. In the embedded
world that teaches next to nothing, as most of what patch embeddings lose cannot be known. A few layers further up the
same difference says what matters, and costs less than the whole tower; and as it is computed anew for every batch, it
can be asked of images that are mixed (`adapter.warmup_mixed`). Both are in docs/decisions.md.
"""

import torch
from torch import Tensor, nn

from components.adapter import LatentAdapter
from components.adapter.losses import high_loss, low_loss
from components.errors import CotamError
from components.step_inputs import StepInputs
from components.training.adapter_stage import AdapterStage, residual
from components.training.loop import Examples, Loss, Schedule
from components.training.mixing import MixedViews
from components.vision import Tower


def run(inputs: StepInputs) -> None:
    """Train a new adapter; write `adapter/` and `metrics.json`."""
    stage = AdapterStage(inputs)
    stage.fit(*beginning(stage), inputs.out, inputs.work / "checkpoint.safetensors")


def beginning(stage: AdapterStage) -> tuple[LatentAdapter, Loss, Examples, Schedule]:
    """A new adapter, and how it is warmed up.

    The loss is lambda_low L_low and the mean squared difference of the token features after `warmup_layer` layers;
    L_low alone where that is 0.

    Raises:
        CotamError: the tower does not have that layer.
    """
    inputs = stage.inputs
    settings = inputs.params.adapter
    if settings.warmup_layer > stage.tower.layers:
        raise CotamError(
            f"adapter.warmup_layer is {settings.warmup_layer}, but the tower of {inputs.mllm} has {stage.tower.layers}."
        )

    def loss(adapter: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        added = residual(adapter, batch, stage.tower)
        low = low_loss(batch["patches"], batch["decoded"], added)
        if settings.warmup_layer == 0:
            return low, {"low": low}
        with torch.no_grad():
            wanted = _state(stage.tower, batch["patches"], settings.warmup_layer)
        shallow = high_loss(wanted, _state(stage.tower, batch["decoded"] + added, settings.warmup_layer))
        return settings.lambda_low * low + shallow, {"low": low, "shallow": shallow}

    views = MixedViews(stage.store, settings.warmup_mixed, stage.tower.grid, inputs.params.seed)
    schedule = Schedule(settings.warmup_epochs, settings.batch, settings.learning_rate, after=settings.joint_epochs)
    return stage.new_adapter(), loss, views, schedule


def _state(tower: Tower, patches_BND: Tensor, layer: int) -> Tensor:
    """Token features (B, N, D) after the first `layer` layers."""
    return tower.hidden_states(patches_BND, {layer})[layer][:, tower.cls :]
