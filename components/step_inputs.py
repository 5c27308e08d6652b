"""What a pipeline step is given: its parameters, where to read, where to write, and nothing else.

A step is a module with `run(inputs: StepInputs) -> None`. It is a function of settings and paths: `cotam step` calls
it, and a notebook or a test can call it with a StepInputs of its own.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import CotamError
from components.paths import CHECKOUT, Paths
from components.tracking.stage_run import StageLog
from components.weights import resolve

if TYPE_CHECKING:
    from components.variants import Run


class Params:
    """A frozen view of some settings: `params.adapter.batch` or `params["adapter"]["batch"]`; lists are tuples.

    Reading a key that the step does not declare raises, so that DVC always knows what a step depends on.
    """

    def __init__(self, values: Mapping[str, Any], prefix: str = ""):
        object.__setattr__(self, "_values", dict(values))
        object.__setattr__(self, "_prefix", prefix)

    def __getitem__(self, name: str) -> Any:
        key = f"{self._prefix}{name}"
        if name not in self._values:
            raise CotamError(f"This step may not read the setting {key}; declare it in components/steps.py.")
        value = self._values[name]
        if isinstance(value, Mapping):
            return Params(value, f"{key}.")
        return tuple(value) if isinstance(value, list) else value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # Python itself asks for these, to copy for instance
            raise AttributeError(name)
        return self[name]

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{self._prefix}{name} is frozen")

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __repr__(self) -> str:
        return f"Params({self._values})"

    def as_dict(self) -> dict[str, Any]:
        """The same as nested dictionaries, to be written or logged."""
        return {name: self[name].as_dict() if isinstance(self[name], Params) else self[name] for name in self}


@dataclass(frozen=True)
class StepInputs:
    """The only argument of a step's `run`.

    Attributes:
        params: the settings that the step declares, e.g. `inputs.params.adapter.batch`.
        work: a folder for checkpoints and half-made things. It is named after the hash of everything that goes into the
            step, survives a kill, is there again when the same step is run on the same inputs, and is removed when the
            step has succeeded.
        out: an empty folder to write results into, under the names that components/steps.py declares. Only when `run`
            returns do they replace the results of an earlier run.
        codec: the name under `codecs` that this instance of the step is for, such as "elic"; None without a variant.
        mllm: the same under `mllms`, such as "micro-llava".
        run: the variant's run that this is a step of (components/variants.py); None in the main pipeline. `params` are
            then the variant's.
        paths: where the results of earlier steps lie.
        log: metrics and files to be seen in MLflow while the step runs; silent when nobody listens. The step of a
            rate-score curve is the rate in thousandths of a bit per pixel.
    """

    params: Params
    work: Path
    out: Path
    codec: str | None = None
    mllm: str | None = None
    run: "Run | None" = None
    paths: Paths = CHECKOUT
    log: StageLog = field(default_factory=StageLog)

    @property
    def codec_weights(self) -> Path:
        """The folder of this instance's codec."""
        return self._model(self.params.codec[self.codec].weights)

    @property
    def mllm_weights(self) -> Path:
        """The folder of this instance's MLLM."""
        return self._model(self.params.mllm[self.mllm].weights)

    @property
    def mllm_dtype(self) -> str | None:
        """In what numbers this instance's MLLM is to be held; None: as `load_mllm` finds right."""
        entry = self.params.mllm[self.mllm]
        return entry.dtype if "dtype" in entry else None

    @property
    def tower_weights(self) -> Path:
        """The folder of the CLIP model whose attention guides the bit allocation."""
        return self._model(self.params.guidance.tower)

    def _model(self, name: str) -> Path:
        here = self.paths.root / name
        return here if here.is_dir() else resolve(name)
