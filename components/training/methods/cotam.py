"""CoTAM as the main pipeline trains it, both stages in one step, with a variant's settings (paper, section 3.3)."""

from components.adapter import LatentAdapter
from components.files import atomic_dir, replace
from components.step_inputs import StepInputs
from components.training import step_joint, step_warmup
from components.training.adapter_stage import AdapterStage


def train(inputs: StepInputs) -> None:
    """Warm up and train; write `model/adapter` and `metrics.json` (of the last stage that had any epochs)."""
    settings, model = inputs.params.adapter, inputs.out / "model"
    stage = AdapterStage(inputs)
    warm = inputs.work / "warmed-up"
    if not settings.warmup_epochs:
        adapter = stage.new_adapter()
    else:
        if not warm.exists():
            with atomic_dir(warm) as out:
                stage.fit(*step_warmup.beginning(stage), out, inputs.work / "warmup.safetensors")
        adapter = LatentAdapter.load(warm / "adapter").train()
    if settings.joint_epochs:
        stage.fit(adapter, *step_joint.ending(stage), model, inputs.work / "joint.safetensors")
    else:
        replace(warm, model)
    replace(model / "metrics.json", inputs.out / "metrics.json")
