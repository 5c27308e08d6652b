"""ELIC-MFT with LoRA (paper, A.5; components/training/mllm_tuning.py)."""

from components.step_inputs import StepInputs
from components.training.mllm_tuning import tune_mllm


def train(inputs: StepInputs) -> None:
    """Write model/mllm, a LoRA, and metrics.json."""
    tune_mllm(inputs, full=False)
