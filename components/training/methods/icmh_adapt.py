"""ICMH-adapt: modulation adapters in a frozen codec (Li et al., ECCV 2024), on the multi-level loss (paper, 4.1).

Li et al. minimise R + lambda D, D a distance of a recognition network's features. As the paper did, D is the
multi-level loss of equation 1, here of the decoded picture alone; R is priced as components/training/codec_tuning.py
says. The adapters are components/codec/modulation.py: the codec's own weights stay as they are, bit for bit.
"""

import torch
from torch import Tensor

from components.codec.modulation import modulated
from components.errors import CotamError
from components.step_inputs import StepInputs
from components.training.codec_tuning import TunedCodec
from components.training.loop import Schedule
from components.training.method_stage import MethodStage


def train(inputs: StepInputs) -> None:
    """Write model/codec, the main codec with its adapters, and metrics.json.

    Raises:
        CotamError: there are no adapters for this codec.
    """
    stage = MethodStage(inputs)
    settings, weights = stage.settings.modulation, inputs.params.adapter
    torch.manual_seed(inputs.params.seed)
    try:
        networks = modulated(stage.codec.model, settings.channels)
    except ValueError as error:
        raise CotamError(f"ICMH-adapt cannot be trained for {inputs.codec}: {error}.") from None
    model = TunedCodec(networks, None, picture=True, sample=stage.sample)

    def loss(out: dict[str, Tensor], batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        decoded_BND = stage.patches(out["x_hat"])
        found = stage.multi_level(batch, decoded_BND, torch.zeros_like(decoded_BND))
        return weights.lambda_low * found["low"] + weights.lambda_high * found["high"], found

    schedule = Schedule(settings.epochs, stage.settings.tuning.batch, settings.learning_rate)
    last = stage.tune(model, loss, schedule, stage.settings.tuning.rate)
    stage.save_codec(model)
    stage.write_metrics(last, stage.validate_codec(model, loss))
