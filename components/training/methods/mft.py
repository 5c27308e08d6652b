"""ELIC-MFT with LoRA (paper, A.5; components/training/mllm_tuning.py).

The codec (g_a, g_s, its quantiser Q) is frozen, and the MLLM p_theta learns to answer about what was decoded:

    min over theta of  - sum_t log p_theta(a_t | a_<t, question, x_hat),   x_hat = g_s(Q(g_a(x)))

The paper gives the idea and no equation: this is the cross-entropy that MLLMs are tuned with (Liu et al. 2023). Of
theta low-rank updates W + (alpha / r) B A of the language model's matrices are learned (Hu et al. 2022), and the whole
projector beside them (`modules_to_save` in components/mllm/overlay.py).
"""

from components.step_inputs import StepInputs
from components.training.mllm_tuning import tune_mllm


def train(inputs: StepInputs) -> None:
    """Write model/mllm, a LoRA, and metrics.json."""
    tune_mllm(inputs, full=False)
