"""Bridge-d1: a transform-neck on the codec as it is (Kao et al., ICLR 2025; components/baselines/bridge.py)."""

import torch

from components.step_inputs import StepInputs
from components.training.bridge_stage import BridgeStage


def train(inputs: StepInputs) -> None:
    """Write model/neck and metrics.json.

    Raises:
        CotamError: the settings do not fit the tower.
    """
    stage = BridgeStage(inputs)
    neck = stage.new_neck()
    last = stage.train_neck(neck)
    neck.cpu().save(stage.model_folder / "neck")
    neck.to(stage.device).eval()

    def measure(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        tokens_BTD = neck(batch["y_hat"], batch["quality_map"], stage.sample)
        found = stage.surrogate(tokens_BTD, batch, 0.0, 1.0)[1]
        return found | {"high_unadapted": stage.unadapted(batch)["high_unadapted"]}

    stage.write_metrics(last, stage.validate(measure))
