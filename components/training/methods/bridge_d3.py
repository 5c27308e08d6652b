"""Bridge-d3: neck, encoder and entropy model learn for machines alone (Kao et al., ICLR 2025, their scenario d3).

The neck is first trained as in d1; then all learn on the rate and the surrogate loss's last phase, R + L_dist, with
bits priced as components/training/codec_tuning.py says. Nothing decodes pictures, so the synthesis does not learn.
"""

from torch import Tensor

from components.step_inputs import StepInputs
from components.training.bridge_stage import BridgeStage
from components.training.codec_tuning import TunedCodec, trainable
from components.training.loop import Schedule


def train(inputs: StepInputs) -> None:
    """Write model/codec, model/neck and metrics.json.

    Raises:
        CotamError: the settings do not fit the tower, or this codec cannot learn.
    """
    stage = BridgeStage(inputs)
    tuning = stage.settings.tuning
    networks = trainable(stage.codec)
    for unused in (networks.up, networks.synthesis_inverse, networks.synthesis):
        unused.requires_grad_(False)
    neck = stage.new_neck()
    stage.train_neck(neck)
    model = TunedCodec(networks, neck, picture=False, sample=stage.sample)

    def loss(out: dict[str, Tensor], batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return stage.surrogate(out["said"], batch, 0.0, 1.0)

    schedule = Schedule(tuning.epochs, tuning.batch, tuning.learning_rate)
    last = stage.tune(model, loss, schedule, tuning.rate)
    stage.save_codec(model)
    neck.cpu().save(stage.model_folder / "neck")
    stage.write_metrics(last, stage.validate_codec(model, loss))
