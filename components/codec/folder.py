"""The codec's folder: `config.json` and `model.safetensors` (float16), and the identity that streams carry."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import CotamError
from components.weights import CONFIG, TENSORS, load_safetensors, save_safetensors

if TYPE_CHECKING:
    from components.codec.transforms import VariableRate


def save_codec(folder: str | Path, model: "VariableRate") -> None:
    """Write a codec's folder, weights as float16."""
    from components.codec.published import is_weight

    tensors = {name: tensor for name, tensor in model.state_dict().items() if is_weight(name)}
    save_safetensors(folder, tensors, model.config.model_dump(mode="json"), half=True)


def load_codec(folder: str | Path) -> "VariableRate":
    """Build the networks of a codec's folder, in evaluation mode, float32.

    Raises:
        CotamError: the folder is missing, damaged, or not a codec's.
    """
    from components.codec.architectures import build, read_config
    from components.codec.published import is_weight

    tensors, config = load_safetensors(folder)
    try:
        model = build(read_config(config))
    except (ValueError, TypeError):
        raise CotamError(f"{folder} does not hold a codec; give a folder made by train_codec.") from None
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    missing = [name for name in missing if is_weight(name)]
    if missing or unexpected:
        raise CotamError(f"{folder}: weights and config.json do not belong together; copy the whole folder again.")
    return model.eval()


def model_id(folder: str | Path) -> str:
    """Eight hexadecimal digits that name a codec: the start of the SHA-256 of its two files, one after the other."""
    files = (Path(folder) / name for name in (CONFIG, TENSORS))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:8]
