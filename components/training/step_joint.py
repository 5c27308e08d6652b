"""The second stage: both ends of the feature hierarchy, lambda_low L_low + lambda_high L_high (paper, equation 1).

It goes on from the adapter of the first stage. L_high is felt through the frozen tower.
"""

from torch import Tensor, nn

from components.adapter import LatentAdapter
from components.adapter.losses import high_loss, low_loss
from components.step_inputs import StepInputs
from components.training.adapter_stage import AdapterStage, residual
from components.training.loop import Examples, Loss, Schedule


def run(inputs: StepInputs) -> None:
    """Train the warmed-up adapter; write `adapter/` and `metrics.json`."""
    stage = AdapterStage(inputs)
    warm = LatentAdapter.load(inputs.paths.warmup(inputs.codec, inputs.mllm) / "adapter").train()
    stage.fit(warm, *ending(stage), inputs.out, inputs.work / "checkpoint.safetensors")


def ending(stage: AdapterStage) -> tuple[Loss, Examples, Schedule]:
    """How a warmed-up adapter is trained. Without a weight for L_high the tower is not run."""
    settings = stage.inputs.params.adapter

    def loss(adapter: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        added = residual(adapter, batch, stage.tower)
        low = low_loss(batch["patches"], batch["decoded"], added)
        if settings.lambda_high == 0:
            return settings.lambda_low * low, {"low": low}
        seen = stage.tower.forward_from_patches(batch["decoded"] + added).consumed_BND
        high = high_loss(batch["features"], seen)
        return settings.lambda_low * low + settings.lambda_high * high, {"low": low, "high": high}

    schedule = Schedule(settings.joint_epochs, settings.batch, settings.learning_rate, before=settings.warmup_epochs)
    return loss, stage.store, schedule
