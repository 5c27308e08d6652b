"""CoTAM-FT: CoTAM whose codec learns with the adapter, a rate loss added to equation 1 (paper, 4.2.1 and figure 8).

    L = lambda_low L_low + lambda_high L_high + R      R: priced bits (components/training/codec_tuning.py)

It goes on from the main codec and the adapter of the joint stage, or one trained likewise with this run's seed.
"""

from torch import Tensor

from components.adapter import LatentAdapter
from components.step_inputs import StepInputs
from components.training.codec_tuning import TunedCodec, trainable
from components.training.loop import Schedule
from components.training.method_stage import MethodStage


def train(inputs: StepInputs) -> None:
    """Write model/codec, model/adapter and metrics.json."""
    stage = MethodStage(inputs)
    tuning, weights = stage.settings.tuning, inputs.params.adapter
    adapter = LatentAdapter.load(inputs.paths.root / inputs.run.start)
    model = TunedCodec(trainable(stage.codec), adapter, picture=True, sample=stage.sample)

    def loss(out: dict[str, Tensor], batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        found = stage.multi_level(batch, stage.patches(out["x_hat"]), out["said"])
        return weights.lambda_low * found["low"] + weights.lambda_high * found["high"], found

    schedule = Schedule(tuning.epochs, tuning.batch, tuning.learning_rate)
    last = stage.tune(model, loss, schedule, tuning.rate)
    codec = stage.save_codec(model)
    adapter.cpu().trained_for(codec, stage.tower.identity).save(stage.model_folder / "adapter")
    stage.write_metrics(last, stage.validate_codec(model, loss))
