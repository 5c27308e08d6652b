"""Weights on disk: a folder with `config.json` and `model.safetensors`, found by path or by name. Never a pickle."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from components.errors import CotamError
from components.files import atomic_dir, read_json, write_json
from components.paths import ROOT

if TYPE_CHECKING:
    import torch

Module = TypeVar("Module", bound="torch.nn.Module")
CONFIG = "config.json"
TENSORS = "model.safetensors"
LONGEST_REASON = 160
"""Characters of another library's error that a sentence of ours holds."""

PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")
"""Weights that are never read: to open such a file can be to run what stands in it, or takes another framework."""

_FETCH = """
import sys, huggingface_hub as hub
try:
    print(hub.snapshot_download(sys.argv[1], ignore_patterns=sys.argv[2:]))
except Exception as error:  # whatever it is, the parent says it in one sentence
    reason = str(error).strip().splitlines()
    print(reason[0].rstrip(".:") if reason else type(error).__name__)
    sys.exit(1)
"""


def save_safetensors(
    folder: str | Path, tensors: Mapping[str, "torch.Tensor"], config: dict[str, Any], *, half: bool = False
) -> None:
    """Write a model's folder, whole or not at all.

    Args:
        folder: replaced if it exists.
        tensors: by name; copied to the CPU, any shapes and dtypes.
        config: what is needed to build the model again; JSON values only.
        half: store floating-point tensors as float16 (`load_safetensors` gives float32 again).
    """
    import torch
    from safetensors.torch import save

    def stored(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.detach().cpu()
        # clone: safetensors refuses tensors that share memory
        return (tensor.half() if half and tensor.is_floating_point() else tensor).clone().contiguous()

    with atomic_dir(folder) as temporary:
        # Not save_file: on a full disk it raises an error of its own, not OSError.
        (temporary / TENSORS).write_bytes(save({name: stored(tensor) for name, tensor in tensors.items()}))
        write_json(temporary / CONFIG, config)


def load_safetensors(folder: str | Path) -> tuple[dict[str, "torch.Tensor"], dict[str, Any]]:
    """Read a model's folder: tensors on the CPU (float16 becomes float32) and the configuration.

    Raises:
        CotamError: a file is missing or damaged.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = read_json(Path(folder) / CONFIG)
    path = Path(folder) / TENSORS
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise CotamError(f"{path} does not exist; give a folder with {CONFIG} and {TENSORS}.") from None
    except SafetensorError as error:
        raise CotamError(f"{path} is damaged ({error}); copy it again.") from None
    return {name: t.float() if t.dtype == torch.float16 else t for name, t in tensors.items()}, config


def load_module(folder: str | Path, build: "Callable[[dict[str, Any]], Module]", what: str) -> "Module":
    """A module from what `save_safetensors` wrote, in evaluation mode, on the CPU.

    Args:
        folder: with config.json and model.safetensors.
        build: makes the untrained module of a configuration; may raise ValueError or TypeError.
        what: it is, with its article: "an adapter".

    Raises:
        CotamError: the folder holds something else, or is damaged.
    """
    tensors, config = load_safetensors(folder)
    try:
        module = build(config)
        module.load_state_dict(tensors)
    except (ValueError, TypeError, RuntimeError) as error:
        raise CotamError(
            f"{folder} does not hold {what} of this version ({first_reason(error)}); give the folder of {what}."
        ) from None
    return module.eval()


def first_reason(error: Exception) -> str:
    """What a library's error says first, on one line: pydantic lists every key, torch every tensor."""
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first["loc"] else first["msg"]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    # "Error(s) in loading state_dict for ...:" says nothing before the next line does.
    said = " ".join(lines[: 2 if lines[0].endswith(":") else 1]).rstrip(".:")
    return said if len(said) <= LONGEST_REASON else said[:LONGEST_REASON].rsplit(" ", 1)[0].rstrip(",") + " ..."


def resolve(name_or_path: str | Path) -> Path:
    """Find a model's folder.

    Args:
        name_or_path: a folder (as given, below the checkout, or below `pretrained/`), a registered version
            (`models:/cotam-codec-elic@champion`), or a name on the Hugging Face hub (`llava-hf/llava-1.5-7b-hf`),
            which is downloaded once.

    Raises:
        CotamError: nothing goes by that name.
    """
    name = str(name_or_path)
    if name.startswith("models:/"):
        from components.tracking.models import download

        return download(name)
    for folder in (Path(name).expanduser(), ROOT / name, ROOT / "pretrained" / name):
        if name and folder.is_dir():
            return folder
    if name and Path(name).exists():
        raise CotamError(f"{name} is a file; give the folder that holds the model's {CONFIG}.")
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name) and not name.startswith("pretrained/"):
        return _from_hub(name)
    raise CotamError(f"There is no model at {name}; give a folder, models:/NAME@ALIAS, or a Hugging Face name.")


def no_weights(folder: Path) -> CotamError:
    """That a folder has no safetensors files, and what to do about it."""
    if pickled := next((path.name for pattern in PICKLED for path in sorted(folder.glob(pattern))), None):
        return CotamError(
            f"{folder} has only pickled weights ({pickled}), which are not read: that could run code; convert them to "
            "safetensors, or name another model."
        )
    return CotamError(f"{folder} has no weights: its safetensors files are missing; fetch them again.")


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, local_files_only=True))
        if _has_weights(folder):
            return folder
    except (LocalEntryNotFoundError, HfHubHTTPError):
        pass
    # A process of its own: this one has told the hub's library to stay offline, which it reads only once.
    environment = os.environ | {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_PROGRESS_BARS": "0"}
    command = [sys.executable, "-c", _FETCH, name, *PICKLED]
    fetch = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    lines = fetch.stdout.strip().splitlines() or ["stopped"]
    if fetch.returncode:
        raise CotamError(
            f"The model {name} is neither a folder here nor could it be fetched from Hugging Face ({lines[-1]}); "
            "connect to the network, or give a folder."
        )
    folder = Path(lines[-1])
    if not _has_weights(folder):
        raise CotamError(
            f"The model {name} has no safetensors on Hugging Face, and pickled weights are not read: that could run "
            "code; convert them, or name another model."
        )
    return folder


def _has_weights(folder: Path) -> bool:
    return any(folder.rglob("*.safetensors"))
