"""The benchmark over clips as an lmms-eval task, asked a few clips at a time: an MLLM sees sixteen frames of each."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import CotamError
from components.evaluation.clips import FILE, asked_document, clip_file
from components.evaluation.streams import CLIP_BENCHMARK
from components.evaluation.suite import Outcome, ask, load_benchmarks, outcome_of

if TYPE_CHECKING:
    from components.mllm import Mllm, Seen


class ClipSuite:
    """Video-MME over one folder of clips (`data/benchmarks/clips`), and the MLLM that is asked."""

    def __init__(self, folder: Path, mllm: "Mllm"):
        """Load the documents.

        Raises:
            CotamError: their file, a column of it, or a clip is missing.
        """
        self.mllm = mllm
        self._benchmarks = load_benchmarks({CLIP_BENCHMARK: folder / FILE})
        missing = [name for name in self._benchmarks[CLIP_BENCHMARK].images if not clip_file(folder, name).is_file()]
        if missing:
            raise CotamError(f"{folder} has no clip {missing[0]}; run `dvc repro benchmarks`.")

    def run(self, portions: "Iterable[Mapping[str, Seen]]") -> Outcome:
        """Ask every question; `portions`: some clips each (name -> what the MLLM sees), together all of them."""
        benchmark = self._benchmarks[CLIP_BENCHMARK]
        waiting = list(zip(benchmark.requests, benchmark.images, strict=True))
        for seen in portions:
            chosen = [(request, seen[clip]) for request, clip in waiting if clip in seen]
            waiting = [(request, clip) for request, clip in waiting if clip not in seen]
            if chosen:
                ask(self.mllm, *zip(*chosen, strict=True))
        if waiting:
            raise ValueError(f"nothing was seen of {waiting[0][1]}")
        outcome = outcome_of(self._benchmarks)
        return replace(outcome, asked=[replace(one, document=asked_document(one.document)) for one in outcome.asked])
