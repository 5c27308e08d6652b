"""ELIC-MFT where all of projector and language model learns (paper, A.5; components/training/mllm_tuning.py).

The loss is that of methods/mft.py, with all of their weights for theta.
"""

from components.step_inputs import StepInputs
from components.training.mllm_tuning import tune_mllm


def train(inputs: StepInputs) -> None:
    """Write model/mllm, the changed tensors, and metrics.json."""
    tune_mllm(inputs, full=True)
