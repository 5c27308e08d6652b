"""ELIC-MFT: the MLLM learns on decoded pictures, the codec stays (paper, A.5).

The loss is the MLLM's cross-entropy on the answers to questions about scenes. As when a LLaVA is instructed (Liu et al.
2023), projector and language model learn and the tower does not; with LoRA, low-rank updates of the language model's
matrices do in place of these.
"""

import torch
from torch import Tensor, nn

from components.mllm import Mllm, load_mllm
from components.mllm.overlay import add_lora, save_full, save_lora
from components.step_inputs import StepInputs
from components.training.lessons import Answering, SceneLessons
from components.training.loop import Schedule
from components.training.method_stage import MethodStage
from components.training.optimizer import fine_tuning


def tune_mllm(inputs: StepInputs, full: bool) -> None:
    """Write model/mllm and metrics.json.

    Args:
        full: whether all weights of projector and language model learn, rather than LoRA's.

    Raises:
        CotamError: the pictures have no scenes to ask about.
    """
    stage = MethodStage(inputs)
    settings, params = stage.settings.mllm_tuning, inputs.params
    mllm = load_mllm(inputs.mllm_weights)
    lessons = SceneLessons(stage.store, stage.scenes, mllm, params.seed, settings.questions)
    torch.manual_seed(params.seed)
    save = _learn_all(mllm) if full else _learn_lora(mllm, settings.rank)
    model = Answering(mllm)

    def states(patches_BND: Tensor) -> Tensor:
        layer = stage.tower.feature_layer
        with torch.no_grad():
            return stage.tower.hidden_states(patches_BND, {layer})[layer]

    def loss(module: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        found = module(states(batch["decoded"]), batch)
        return found["answer"], found

    rate = settings.full_learning_rate if full else settings.learning_rate
    schedule = Schedule(settings.epochs, params.adapter.batch, rate)
    last = stage.fit_phase("mllm", model, loss, lessons, schedule, fine_tuning({"mllm": 1.0}))
    save(stage.model_folder / "mllm")

    untouched_mllm = load_mllm(inputs.mllm_weights)
    untouched = Answering(untouched_mllm).to(stage.device)
    model.to(stage.device)

    def measure(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        seen, original = states(batch["decoded"]), states(batch["patches"])
        found = model(seen, batch) | {f"{k}_unadapted": v for k, v in untouched(seen, batch).items()}
        # What fine-tuning does to clean pictures is part of what it costs.
        return found | {f"{name}_clean": value for name, value in model(original, batch).items()}

    stage.write_metrics(last, stage.validate(measure, lessons))


def _learn_lora(mllm: Mllm, rank: int):
    tuned = add_lora(mllm.model, rank)
    return lambda folder: save_lora(tuned, folder)


def _learn_all(mllm: Mllm):
    if mllm.model.dtype != torch.float32:  # small steps would be rounded away
        mllm.model.float()
    mllm.model.requires_grad_(True)
    mllm.model.model.vision_tower.requires_grad_(False)
    return lambda folder: save_full(mllm.model, folder)
