"""The first stage of the adapter's training: L_low alone, so that it grasps basic structure first (paper, 4.1).

The tower is not run at all: the loss ends at its patch embeddings.
"""

from torch import Tensor, nn

from components.adapter.losses import low_loss
from components.step_inputs import StepInputs
from components.training.adapter_stage import AdapterStage, residual


def run(inputs: StepInputs) -> None:
    """Train a new adapter; write `adapter/` and `metrics.json`."""
    stage = AdapterStage(inputs)

    def loss(adapter: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        low = low_loss(batch["patches"], batch["decoded"], residual(adapter, batch, stage.tower))
        return low, {"low": low}

    stage.fit(stage.new_adapter(), loss, inputs.params.adapter.warmup_epochs)
