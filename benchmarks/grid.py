"""The whole grid of rates and MLLMs: every image coded once and kept, against every rate and MLLM evaluated afresh.

Both ways ask the same questions of the six benchmarks about the same guided streams, in one process, in alternating
order; their answers must be equal. The cache starts empty in every round, so its side pays for the first encoding, for
keys and for files. Loading the models is not counted. Needs no adapter: the MLLMs see decoded pixels.

    python -m benchmarks.grid --images 24 --qualities 0 2 4 6 8 --rounds 5
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from components import config
from components.codec import Codec
from components.environment import be_quiet, use_threads
from components.evaluation.coding import Coder, Guide, load_guide
from components.evaluation.coding_cache import CodingCache
from components.evaluation.pictures import Pictures, benchmark_pictures
from components.evaluation.step_benchmarks import write_benchmarks
from components.evaluation.streams import COTAM, Setting
from components.evaluation.suite import Suite
from components.mllm import Mllm, load_mllm
from components.paths import PRETRAINED
from components.progress import track

MLLMS = 4  # as in the paper


class Clock:
    """Seconds by what was done."""

    def __init__(self):
        self.seconds: Counter[str] = Counter()

    @contextmanager
    def __call__(self, what: str):
        """Time a block."""
        start = time.perf_counter()
        yield
        self.seconds[what] += time.perf_counter() - start


def grid(coders: Sequence[Coder], suites: Sequence[Suite], qualities: Sequence[int], pictures: Pictures) -> dict:
    """Evaluate every MLLM at every quality, MLLM by MLLM, as they come to a machine: coder k codes for MLLM k.

    Returns:
        `seconds` of encoding, decoding and asking; images `encoded`, for each MLLM; and all `answers`.
    """
    clock, answers, encoded = Clock(), [], []
    for coder, suite in zip(coders, suites, strict=True):
        before = coder.encoded
        for quality in qualities:
            with clock("encode"):
                files = coder.encode(Setting(COTAM, str(quality)), pictures)
            with clock("decode"):
                decoded = coder.decode(files)
            with clock("ask"):
                views = suite.mllm.views([one.image for one in decoded.values()])
                outcome = suite.run(dict(zip(decoded, views, strict=True)))
            answers.append([asked.answer for asked in outcome.asked])
        encoded.append(coder.encoded - before)
    return {"seconds": dict(clock.seconds), "encoded": encoded, "answers": answers}


def measure(
    codec: Codec, guide: Guide, mllms: Sequence[Mllm], qualities: Sequence[int], images: int, rounds: int
) -> dict[str, Any]:
    """Both ways, `rounds` times in turn."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_benchmarks(root / "bench", images, "bench", seed=0, side=128)
        pictures = benchmark_pictures(root / "bench")
        suites = [Suite(root / "bench", mllm) for mllm in mllms]

        def way(cached: bool, name: str) -> dict:
            # An object for every MLLM, as in a process of its own; what they share is the folder.
            caches = [CodingCache(root / name) if cached else None for _ in mllms]
            return grid([Coder(codec, guide, cache) for cache in caches], suites, qualities, pictures)

        grid([Coder(codec, guide)], suites[:1], qualities[:1], pictures)  # warm up
        found: dict[bool, list[dict]] = {False: [], True: []}
        for number in track(range(rounds), "evaluating the grid"):
            for cached in (False, True) if number % 2 == 0 else (True, False):
                found[cached].append(way(cached, f"cache-{number}"))
            if found[False][-1]["answers"] != found[True][-1]["answers"]:
                raise AssertionError("the cache changed an answer")
    totals = {cached: [sum(one["seconds"].values()) for one in runs] for cached, runs in found.items()}
    coding = {cached: [one["seconds"]["encode"] for one in runs] for cached, runs in found.items()}
    return {
        "images": images,
        "qualities": list(qualities),
        "mllms": len(mllms),
        "questions": len(found[True][0]["answers"][0]),
        "rounds": rounds,
        "encoded": {"afresh": found[False][0]["encoded"], "cached": found[True][0]["encoded"]},
        "seconds": {name: _parts(found[cached]) for name, cached in (("afresh", False), ("cached", True))},
        "times_as_fast": _spread(np.array(totals[False]) / totals[True]),
        "times_as_fast_encoding": _spread(np.array(coding[False]) / coding[True]),
    }


def _parts(runs: Sequence[dict]) -> dict[str, float]:
    """The median of each part."""
    return {name: round(float(np.median([run["seconds"][name] for run in runs])), 3) for name in runs[0]["seconds"]}


def _spread(ratios) -> dict[str, float]:
    names = ("least", "lower_quartile", "median", "upper_quartile", "most")
    return dict(zip(names, np.percentile(ratios, (0, 25, 50, 75, 100)).round(3).tolist(), strict=True))


def main() -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--qualities", type=int, nargs="+", default=[0, 2, 4, 6, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--codec", default=str(PRETRAINED / "codec/elic-micro"))
    parser.add_argument(
        "--mllms",
        nargs="+",
        metavar="PATH",
        help=f"by default those in pretrained/mllm, repeated until there are {MLLMS}: one that is asked twice costs as "
        "much as two",
    )
    parser.add_argument("--json", action="store_true", help="report as JSON")
    args = parser.parse_args()
    be_quiet()
    use_threads(1)
    shipped = sorted(str(path.parent) for path in (PRETRAINED / "mllm").glob("*/config.json"))
    names = args.mllms or (shipped * MLLMS)[: max(MLLMS, len(shipped))]
    opened = {name: load_mllm(name) for name in dict.fromkeys(names)}
    guide = load_guide(**config.load().guidance.model_dump())
    mllms = [opened[name] for name in names]
    result = measure(Codec.from_pretrained(args.codec), guide, mllms, args.qualities, args.images, args.rounds)
    result["names"] = [Path(name).name for name in names]
    if args.json:
        print(json.dumps(result, indent=2))
        return 0
    print(
        f"{result['images']} images, {len(result['qualities'])} rates, {result['questions']} questions; "
        f"MLLMs: {', '.join(result['names'])}; {result['rounds']} rounds"
    )
    for name in ("afresh", "cached"):
        parts = ", ".join(f"{part} {seconds:.2f}" for part, seconds in result["seconds"][name].items())
        print(f"{name}: encoded {' + '.join(map(str, result['encoded'][name]))} images; seconds: {parts}")
    for name, what in (("times_as_fast", "the whole grid"), ("times_as_fast_encoding", "encoding alone")):
        spread = result[name]
        print(
            f"{what}: {spread['median']:.2f} times as fast (quartiles {spread['lower_quartile']:.2f} to "
            f"{spread['upper_quartile']:.2f}, all {spread['least']:.2f} to {spread['most']:.2f})"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
