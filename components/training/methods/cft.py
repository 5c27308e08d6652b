"""ELIC-CFT: the codec learns through the frozen MLLM's cross-entropy (paper, A.5).

    min over phi of  - sum_t log p(a_t | a_<t, question, x_hat) + rate * c * R(y_hat),   x_hat = g_s(y_hat)

with phi the codec's parameters, R the rate of y_hat in bits per pixel, and c what a bit costs (codec_tuning.py). The
paper gives no equation and names no other loss, so by default (`baselines.cft.rate: 0`) nothing holds the rate;
validation says what becomes of it.
"""

import torch
from torch import Tensor

from components.mllm import load_mllm
from components.step_inputs import StepInputs
from components.training.codec_tuning import TunedCodec, trainable
from components.training.lessons import Answering, SceneLessons
from components.training.loop import Schedule
from components.training.method_stage import MethodStage


def train(inputs: StepInputs) -> None:
    """Write model/codec and metrics.json.

    Raises:
        CotamError: the pictures have no scenes to ask about, or this codec cannot learn.
    """
    stage = MethodStage(inputs)
    settings, seed = stage.settings.cft, inputs.params.seed
    mllm = load_mllm(inputs.mllm_weights)
    lessons = SceneLessons(stage.views, stage.scenes, mllm, seed, stage.settings.mllm_tuning.questions)
    answering = Answering(mllm).to(stage.device)
    model = TunedCodec(trainable(stage.codec), None, picture=True, sample=stage.sample)
    layer = stage.tower.feature_layer

    def ask(patches_BND: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        with torch.autocast(patches_BND.device.type, torch.bfloat16):
            return answering(stage.tower.hidden_states(patches_BND, {layer})[layer], batch)

    def loss(out: dict[str, Tensor], batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        found = ask(stage.patches(out["x_hat"]), batch)
        return found["answer"], found

    schedule = Schedule(settings.epochs, stage.settings.tuning.batch, stage.settings.tuning.learning_rate)
    last = stage.tune(model, loss, schedule, settings.rate, examples=lessons)
    stage.save_codec(model)
    model.to(stage.device).eval()
    rate = stage.rate_unadapted()

    def measure(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        out = model(batch["pixels"], batch["quality_map"])
        before = {f"{name}_unadapted": value for name, value in ask(batch["decoded"], batch).items()}
        return loss(out, batch)[1] | before | {"bpp": out["bpp"], "bpp_unadapted": rate(batch)}

    stage.write_metrics(last, stage.validate(measure, lessons))
