"""What the trainings here share: common arguments, the learning rate over time, a line of progress, float16 weights."""

import argparse
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel


def parsed(parser: argparse.ArgumentParser, rate: float) -> argparse.Namespace:
    """The arguments, those of every training added: `rate` is the default of the highest learning rate."""
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--scenes", type=Path, default=Path("data/pretrain"))
    parser.add_argument("--rate", type=float, default=rate)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    return args


def add_device(parser: argparse.ArgumentParser) -> None:
    """The option of those that can also be trained on a GPU."""
    parser.add_argument("--device", type=_there, choices=("cpu", "cuda"), default="cpu", help="(default: %(default)s)")


def _there(device: str) -> str:
    if device == "cuda" and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError("there is no GPU that PyTorch can use; without it the CPU trains")
    return device


def held(array: np.ndarray, device: torch.device) -> Tensor:
    """An array that batches are picked from: where it lies, or whole in a GPU's memory, which picks faster."""
    # Arrays on disk are mapped for reading alone; nothing here writes into them.
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        tensor = torch.from_numpy(array)
    return tensor if device.type == "cpu" else tensor.to(device)


def learning_rate(highest: float, spent: float) -> float:
    """A short rise, then half a cosine, when the share `spent` of the time is over."""
    return highest * min(spent / 0.04, 0.5 + 0.5 * np.cos(np.pi * spent)) + 1e-6


def means(names: Sequence[str], recent: Sequence[Tensor]) -> str:
    """The means of some steps' figures, each behind its name; what a step could not tell does not count."""
    values = torch.stack(list(recent)).nanmean(0).tolist()
    return " ".join(f"{name} {value:.3f}" for name, value in zip(names, values, strict=True))


def save_half(model: PreTrainedModel, output: Path, state: Mapping[str, Tensor] | None = None) -> None:
    """Write a model in float16, said so in its configuration and in those of its parts; `model` keeps its precision.

    Args:
        state: what is written; the model's own when None.
    """
    copy = type(model)(model.config)
    copy.load_state_dict(model.state_dict() if state is None else state)
    for name in ("text_config", "vision_config"):
        if config := getattr(model.config, name, None):
            config.dtype = torch.float16
    if model.can_generate():
        copy.generation_config = model.generation_config
    copy.half().save_pretrained(output)
