"""In which numbers and on which devices models are run: what may be chosen, and whether it is here."""

from typing import TYPE_CHECKING, Any, Literal, get_args

from components.errors import CotamError

if TYPE_CHECKING:
    import torch

Dtype = Literal["auto", "bfloat16", "float16", "float32"]
"""In what numbers an MLLM's weights are held; `auto`: as they are stored."""
DTYPES: tuple[str, ...] = get_args(Dtype)


def best_device() -> "torch.device":
    """Where the pipeline's frozen parts beside the MLLM are run: the first GPU, or the CPU where there is none."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def check_dtype(dtype: Any) -> None:
    """Raises CotamError where an MLLM's weights cannot be held in it; None, and what torch has itself, will do."""
    import torch

    of_torch = isinstance(dtype, torch.dtype) and dtype.is_floating_point
    if not of_torch and dtype is not None and dtype not in DTYPES:
        raise CotamError(f"There is no dtype {dtype!r} for an MLLM; choose {', '.join(DTYPES[:-1])} or {DTYPES[-1]}.")


def check_device(device: Any, named_by: str, others: str = "") -> "torch.device":
    """The device of this name, or number.

    Args:
        device: cpu, cuda:0, 0, ...
        named_by: who names it, as the sentence begins.
        others: what may be chosen beside devices, as the sentence ends.

    Raises:
        CotamError: it is not here.
    """
    import torch

    from components.weights import first_reason

    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        raise CotamError(
            f"{named_by} names {device!r}, which is no device of this machine ({first_reason(error)}); choose cpu, a "
            f"GPU that is here (cuda:0){others}."
        ) from error
