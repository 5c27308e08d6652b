"""Where everything lies in a checkout.

A stage writes into one folder (see `components/steps.py` for which files of it are the stage's results); the next
stages find it here, so that no path is spelled twice.
"""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The checkout that this code was imported from."""

PRETRAINED = ROOT / "pretrained"
STATE = ROOT / ".cotam"
CODING_CACHE = STATE / "cache/streams"
"""Streams of images that were coded once (`components.evaluation.coding_cache`)."""


def instance_name(codec: str | None = None, mllm: str | None = None) -> str:
    """`elic`, `elic-micro-llava` or nothing: what DVC writes after the `@` of a stage's name."""
    return "-".join(part for part in (codec, mllm) if part)


@dataclass(frozen=True)
class Paths:
    """The files of every stage below one checkout (`root`), so that a test can use an empty folder as a checkout."""

    root: Path = ROOT

    @property
    def work(self) -> Path:
        """Checkpoints and half-made things, which survive a kill: `<stage>/<input hash>/`."""
        return self.root / ".cotam/work"

    @property
    def locks(self) -> Path:
        """A lock per stage, shared by everyone who works in this checkout."""
        return self.root / ".cotam/locks"

    @property
    def weights(self) -> Path:
        """JSON: the SHA-256 of every model that the settings name (stage `weights`)."""
        return self.root / "data/weights.json"

    @property
    def scenes(self) -> Path:
        """Tar files of PNG pictures and their scene graphs (stage `render`)."""
        return self.root / "data/scenes"

    @property
    def shards(self) -> Path:
        """Tar shards and `manifest.json` (stage `shard`)."""
        return self.root / "data/shards"

    @property
    def benchmarks(self) -> Path:
        """`bench/` and `train/` with `images/*.png` and one `.jsonl` per benchmark (stage `benchmarks`)."""
        return self.root / "data/benchmarks"

    def rate(self, codec: str) -> Path:
        """`streams.zip` and `rates.json` (stage `rate`)."""
        return self.root / "results/rate" / instance_name(codec)

    def warmup(self, codec: str, mllm: str) -> Path:
        """`adapter/` and `metrics.json` (stage `warmup`)."""
        return self.root / "results/warmup" / instance_name(codec, mllm)

    def joint(self, codec: str, mllm: str) -> Path:
        """`adapter/` and `metrics.json` (stage `joint`)."""
        return self.root / "results/joint" / instance_name(codec, mllm)

    def scores(self, codec: str, mllm: str) -> Path:
        """`scores.json`, `samples/` and `metrics.json` (stage `evaluate`)."""
        return self.root / "results/scores" / instance_name(codec, mllm)

    @property
    def report(self) -> Path:
        """`index.html` and `summary.json` (stage `report`); `run.json` is put beside them by whoever drove the run."""
        return self.root / "results/report"


CHECKOUT = Paths()
