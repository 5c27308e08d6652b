"""What surrounds a run and would change its numbers or talk to the network: threads, telemetry, library versions."""

import hashlib
import os
import re
import sys
import warnings
from pathlib import Path

from components.errors import CotamError
from components.paths import ROOT

NUMERIC_LIBRARIES = (
    "accelerate",
    "bjontegaard",
    "compressai",
    "lmms-eval",
    "numpy",
    "pillow",
    "scikit-image",
    "scikit-learn",
    "scipy",
    "torch",
    "torchvision",
    "transformers",
)
"""The libraries whose version can change a number. A new version of one re-runs every stage."""

_QUIET = {
    "ACCELERATE_DISABLE_RICH": "1",
    "ANONYMIZED_TELEMETRY": "false",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
}


def be_quiet() -> None:
    """Switch off telemetry and the Hugging Face hub's network, unless the user has set the variable already.

    Call it before a library reads its variables, that is, before importing one. Models from the hub are fetched by
    `components.weights.resolve` alone.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    # CompressAI's doing at import, and nothing that a user could act on.
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)


def use_threads(count: int) -> None:
    """Pin the number of threads: sums in another order are other floats, so the thread count is part of a result."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(count)
    if "torch" in sys.modules:  # too late for the variables
        sys.modules["torch"].set_num_threads(count)


def numeric_versions(lock: Path = ROOT / "requirements.lock") -> dict[str, str]:
    """The pinned version of every numeric library, from requirements.lock.

    Raises:
        CotamError: the lock file is missing or does not pin one of them.
    """
    try:
        pins = dict(re.findall(r"^([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?==([^\s;]+)", lock.read_text(), re.MULTILINE))
    except FileNotFoundError:
        raise CotamError(f"{lock} is missing; restore it with `git checkout requirements.lock`.") from None
    missing = [name for name in NUMERIC_LIBRARIES if name not in pins]
    if missing:
        raise CotamError(f"{lock} does not pin {', '.join(missing)}; compile it again from pyproject.toml.")
    return {name: pins[name] for name in NUMERIC_LIBRARIES}


def numeric_fingerprint(lock: Path = ROOT / "requirements.lock") -> str:
    """Sixteen hex digits that change when a numeric library's pinned version does."""
    text = "\n".join(f"{name}=={version}" for name, version in numeric_versions(lock).items())
    return hashlib.sha256(text.encode()).hexdigest()[:16]
