"""Seconds, by the clock and of the processor, and which part of a codec they go to."""

import time
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.compressai_elic import CompressaiElic
    from components.codec.codec import Codec

Spent = tuple[float, float]
"""Seconds by the clock, and of the process on all processors."""


def spend(work: Callable[[], object]) -> tuple[Spent, object]:
    """What a piece of work takes, and gives."""
    clock, processor = time.perf_counter(), time.process_time()
    result = work()
    # A clock of coarse ticks may not have moved.
    return (time.perf_counter() - clock, max(time.process_time() - processor, 1e-9)), result


class Stages:
    """Adds up the seconds that methods of some objects take, by stage; calls within calls count once."""

    def __init__(self):
        self.seconds: dict[str, float] = defaultdict(float)
        self._inside = False

    def watch(self, owner: object, name: str, stage: str) -> None:
        """Time this method (or function of a module) of the owner as part of a stage, until the process ends."""
        inner = getattr(owner, name)

        def outer(*args, **kwargs):
            if self._inside:
                return inner(*args, **kwargs)
            self._inside = True
            start = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                self.seconds[stage] += time.perf_counter() - start
                self._inside = False

        setattr(owner, name, outer)

    def take(self, total: float) -> dict[str, float]:
        """The stages since the last call, and what is left of the total."""
        found = dict(self.seconds)
        self.seconds.clear()
        return found | {"other": total - sum(found.values())}


def watch_ours(codec: "Codec") -> Stages:
    """Our codec's stages."""
    from components.codec import wire

    stages, exact = Stages(), codec.wire.exact
    stages.watch(codec.transforms, "analyse", "analysis")
    stages.watch(codec.transforms, "synthesize", "synthesis")
    for owner, name in ((codec.wire, "_hyper_latent"), (exact, "hyper_prior"), (exact, "side")):
        stages.watch(owner, name, "hyperprior")
    for name in ("before", "parameters_of", "units"):
        stages.watch(exact, name, "context")
    stages.watch(wire.Quantizer, "streams", "entropy coding")
    stages.watch(wire.Reader, "symbols", "entropy coding")
    return stages


def watch_theirs(model: "CompressaiElic") -> Stages:
    """CompressAI's transforms; its latent codecs mix networks and coding."""
    stages = Stages()
    stages.watch(model.g_a, "forward", "analysis")
    stages.watch(model.g_s, "forward", "synthesis")
    return stages
