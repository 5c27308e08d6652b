"""What damaged streams do to the decoder: each must end in a clear error or in exactly the right latent.

    cotam bench fuzz [--json]          or: python benchmarks/fuzz.py --streams 200000 --workers 2

Streams of small scenes are mutated, cut, lengthened and spliced; header fields are changed with the header's own check
made right, so that what lies behind it is reached; random words stand behind true headers; and, for a fifth of all
streams, whatever reached code that no stream reached before is mutated further (lines of components/codec, traced).

They are decoded in processes of their own with a bound on memory. What is counted as a failure: any end but a
`CotamError` of one line or a latent that some encoder meant; more memory than the bound; a process that dies; a
stream that keeps the processor busy for more than a second. docs/fuzz.json is the report of

    cotam bench fuzz --json > docs/fuzz.json

With --video, streams are videos (`fuzz_video.py`).
"""

import argparse
import faulthandler
import hashlib
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from components.codec import Codec, Decoded
from components.codec.container import FREE_GRIDS, MAGIC, header_bytes, pack, seal, unpack
from components.environment import be_quiet, use_threads
from components.errors import CotamError
from components.paths import ROOT
from components.progress import track
from components.scenes import render, sample_scene

CODEC = ROOT / "pretrained/codec/elic-micro"
MAXIMUM_PIXELS = 1 << 16  # what the decoder is told to accept
MEMORY_MIB = 256  # that a process may take beyond what it has when its models are loaded
HANG_SECONDS = 60  # after which a process is ended; what took more than one second is reported
AT_ONCE = 10_000  # streams per process
KINDS = ("bits", "bytes", "cut", "longer", "splice", "header", "payload", "random", "guided", "guided")


def originals(codec: Codec) -> list[bytes]:
    """Streams that an encoder means: small scenes with every form of header."""
    sizes, grids, qualities = [(32, 32), (64, 64), (17, 40), (1, 1)], [*FREE_GRIDS, (3, 5), (6, 6)], [0, 4, 9]
    streams, rng = [], np.random.default_rng(0)
    for k in range(12):
        height, width = sizes[k % len(sizes)]
        grid = grids[k % len(grids)]
        scene = render(sample_scene(k, "validation", "bench"))[16 : 16 + height, 16 : 16 + width]
        levels = None if grid is None else rng.integers(-1, 2, grid)
        streams += codec.encode([scene], qualities[k % len(qualities)], [levels])
    return streams


class Mutator:
    """Makes streams that no encoder meant, from ones that it did."""

    kinds = KINDS

    def __init__(self, rng: np.random.Generator, sources: Sequence[bytes]):
        self.rng = rng
        self.sources = list(sources)
        self.corpus = list(sources)  # and what reached new code

    def make(self, kind: str) -> bytes:
        """A stream of one of `kinds`."""
        if kind == "guided":
            stream = self._one(self.corpus)
            for _ in range(self._int(1, 4)):
                stream = getattr(self, f"_{self.kinds[self._int(0, 7)]}")(stream)
            return stream
        return getattr(self, f"_{kind}")(self._one(self.sources))

    def _int(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high))

    def _one(self, streams: Sequence):
        return streams[self._int(0, len(streams))]

    def _bits(self, stream: bytes) -> bytes:
        changed = bytearray(stream)
        for _ in range(self._int(1, 5) if stream else 0):
            changed[self._int(0, len(changed))] ^= 1 << self._int(0, 8)
        return self._sealed(bytes(changed))

    def _bytes(self, stream: bytes) -> bytes:
        changed = bytearray(stream)
        for _ in range(self._int(1, 9) if stream else 0):
            changed[self._int(0, len(changed))] = self._int(0, 256)
        return self._sealed(bytes(changed))

    def _cut(self, stream: bytes) -> bytes:
        lost = self._int(0, len(stream) + 1)
        return stream[: len(stream) - (lost // 4 * 4 if self._int(0, 2) else lost)]

    def _longer(self, stream: bytes) -> bytes:
        return stream + self.rng.bytes(self._int(1, 17) * (4 if self._int(0, 2) else 1))

    def _splice(self, stream: bytes) -> bytes:
        other = self._one(self.sources)
        if self._int(0, 2):
            return stream[: self._int(0, len(stream) + 1)] + other[self._int(0, len(other) + 1) :]
        return stream[: self._length(stream)] + other[self._length(other) :]

    def _header(self, stream: bytes) -> bytes:
        """Some fields with other values; everything that a reader can check without decoding is right."""
        try:
            header, payload = unpack(stream)
        except CotamError:
            return self._sealed(stream)
        side = (1, 300) if self._int(0, 2) else (1, 65536)
        grid = self._one([*FREE_GRIDS, (self._int(1, 256), self._int(1, 256)), (self._int(1, 9), self._int(1, 9))])
        changes = {
            "model_id": self.rng.bytes(4).hex(),
            "width": self._int(*side),
            "height": self._int(*side),
            "quality": self._int(0, 10),
            "grid": grid,
            "check": self._int(0, 1 << 32),
        }
        names = [name for name in list(changes)[self._int(0, 2) :] if self._int(0, 3) == 0]
        header = replace(header, **{name: changes[name] for name in names})
        return pack(header, payload, header.check)

    def _payload(self, stream: bytes) -> bytes:
        return stream[: self._length(stream)] + self.rng.bytes(4 * self._int(2, 200))

    def _random(self, stream: bytes) -> bytes:
        start = MAGIC + bytes([0x20 | self._int(0, 16)]) if self._int(0, 2) else b""
        made = start + self.rng.bytes(self._int(0, 400))
        return self._sealed(made[:4] + stream[4:8] + made[8:])

    def _sealed(self, stream: bytes) -> bytes:
        """With the header's own check made right, two times in three."""
        length = self._length(stream)
        return seal(stream[:length]) + stream[length:] if 4 <= length <= len(stream) and self._int(0, 3) else stream

    @staticmethod
    def _length(stream: bytes) -> int:
        """Of the header, or what it would be."""
        try:
            return header_bytes(stream)
        except CotamError:
            return 14 + (stream[3] >> 6) + (2 if stream[3] >> 4 & 3 == 3 else 0) if len(stream) > 3 else 0


class Judge:
    """Decodes a stream and says how it ended; anything that may not happen is an exception."""

    def __init__(self, codec: Codec, meant: Sequence[bytes]):
        self.codec = codec
        self.right = {digest for stream in meant for digest in self._digests(stream)}

    def __call__(self, stream: bytes) -> str:
        """`right`, or the error's sentence without its numbers."""
        try:
            digest = self._digest(stream)
        except CotamError as error:
            if "\n" in str(error):
                raise ValueError(f"more than one line: {error}") from error
            return re.sub(r"codec \w+, this one is \w+", "codec N, this one is N", re.sub(r"\d+", "N", str(error)))
        if digest not in self.right:
            raise ValueError("accepted, but no encoder meant this latent")
        return "right"

    def _digest(self, stream: bytes) -> str:
        return self._digests(stream)[0]

    def _digests(self, stream: bytes) -> list[str]:
        """Of all that is in a stream."""
        return [digest(decoded) for decoded in self.codec.decode([stream], MAXIMUM_PIXELS)]


def digest(decoded: Decoded) -> str:
    """SHA-256 of what a decoder gives."""
    parts = (decoded.latent.tobytes(), decoded.level_map.tobytes(), bytes(str(decoded.size), "ascii"))
    return hashlib.sha256(b"".join(parts) + bytes([decoded.quality])).hexdigest()


class Coverage:
    """Steps from line to line in components/codec that any stream has taken."""

    def __init__(self):
        self.seen: set[tuple] = set()
        self._folder = str(ROOT / "components" / "codec")

    def new(self, judge: Judge, stream: bytes) -> tuple[str, bool]:
        """How a stream ended, and whether it took a step that none took before."""
        before, last = len(self.seen), {}

        def line(frame, event, _):
            if event == "line":
                self.seen.add((frame.f_code, last.get(frame.f_code), frame.f_lineno))
                last[frame.f_code] = frame.f_lineno
            return line

        def call(frame, event, argument):
            return line if frame.f_code.co_filename.startswith(self._folder) else None

        sys.settrace(call)
        try:
            found = judge(stream)
        finally:
            sys.settrace(None)
        return found, len(self.seen) > before


def run(
    seed: int, count: int, judge: Judge, meant: Sequence[bytes], current: Path | None = None, kind_of=Mutator
) -> Iterator[dict]:
    """Judge `count` streams.

    Args:
        seed: of the mutations.
        kind_of: the class that makes them.
        current: where to leave the stream that is being decoded, should the process die of it.

    Yields:
        For every stream its kind, how it ended, and its seconds by the clock and of the processor.
    """
    mutator, coverage = kind_of(np.random.default_rng(seed), meant), Coverage()
    for k in range(count):
        kind = mutator.kinds[k % len(mutator.kinds)]
        stream = mutator.make(kind)
        if current:
            current.write_bytes(stream)
        clock, processor = time.perf_counter(), time.process_time()
        failed = False
        try:
            if kind == "guided":
                end, new = coverage.new(judge, stream)
                if new:
                    mutator.corpus.append(stream)
            else:
                end = judge(stream)
        except Exception as error:  # whatever it is, it is what this looks for
            end, failed = f"{type(error).__name__}: {error}", True
        seconds = time.perf_counter() - clock, time.process_time() - processor
        found = {"kind": kind, "end": end, "clock": seconds[0], "processor": seconds[1], "failed": failed}
        yield found | ({"stream": stream.hex()} if failed else {})


def work(seed: int, count: int, codec: Path, current: Path, video: bool = False) -> dict:
    """What one process does, and finds."""
    from benchmarks import fuzz_video

    kinds = fuzz_video if video else sys.modules[__name__]
    judge = kinds.Judge(model := Codec.from_pretrained(codec), meant := kinds.originals(model))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    taken = int(re.search(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text()).group(1)) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (taken + (MEMORY_MIB << 20),) * 2)
    ends: dict[str, Counter] = {}
    failures, clock, processor = [], [], []
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
    for found in run(seed, count, judge, meant, current, kinds.Mutator):
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        ends.setdefault(found["kind"], Counter())[found["end"]] += 1
        clock.append(found["clock"])
        processor.append(found["processor"])
        if found["failed"] or found["processor"] > 1:
            failures.append(found)
    faulthandler.cancel_dump_traceback_later()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"ends": ends, "failures": failures, "clock": clock, "processor": processor, "grown_mib": grown / 1024}


def measure(streams: int, workers: int, seed: int, codec: Path, video: bool = False) -> dict:
    """Run all processes and add up what they found."""
    counts = [min(AT_ONCE, streams - start) for start in range(0, streams, AT_ONCE)]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(workers) as pool:

        def start(k: int) -> dict:
            current = Path(folder) / str(k)
            command = [sys.executable, "-m", "benchmarks.fuzz", "--worker", str(current), "--codec", str(codec)]
            command += ["--video"] * video
            command += ["--seed", str(1000 * seed + k), "--streams", str(counts[k])]
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
            if done.returncode == 0:
                return json.loads(done.stdout.splitlines()[-1])
            stream = current.read_bytes().hex() if current.exists() else None
            return {"died": done.returncode, "stderr": done.stderr[-2000:], "stream": stream}

        results = list(track(pool.map(start, range(len(counts))), "Fuzzing", len(counts)))
    dead = [result for result in results if "died" in result]
    alive = [result for result in results if "died" not in result]
    ends: dict[str, Counter] = {}
    for result in alive:
        for kind, found in result["ends"].items():
            ends.setdefault(kind, Counter()).update(found)
    total = sum(ends.values(), Counter())
    failures = [failure for result in alive for failure in result["failures"]]
    return {
        "streams": total.total(),
        "failures": len(failures) + len(dead),
        "right_latent": total["right"],
        "refused": total.total() - total["right"] - sum(one["failed"] for one in failures),
        "maximum_pixels": MAXIMUM_PIXELS,
        "memory_bound_mib": MEMORY_MIB,
        "memory_taken_mib": round(max((result["grown_mib"] for result in alive), default=0.0), 1),
        "milliseconds": {name: _spread([result[name] for result in alive]) for name in ("clock", "processor")},
        "kinds": {kind: dict(found.most_common()) for kind, found in sorted(ends.items())},
        "failed": (failures + dead)[:20],
        "seed": seed,
        "processes": len(results),
        "codec": codec.name,
        "video": video,
    }


def _spread(parts: list[list[float]]) -> dict[str, float]:
    seconds = np.concatenate(parts or [[0.0]])
    values = {"median": np.median(seconds), "p99": np.percentile(seconds, 99), "largest": seconds.max()}
    return {name: round(1000 * float(value), 2) for name, value in values.items()}


def main() -> int:
    """Measure and report; exit with 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=200_000)
    parser.add_argument("--workers", type=int, default=1, help="processes at once")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--codec", type=Path, default=CODEC)
    parser.add_argument("--json", action="store_true", help="report as JSON")
    parser.add_argument("--video", action="store_true", help="videos, not images")
    parser.add_argument("--worker", type=Path, metavar="FILE", help=argparse.SUPPRESS)
    args = parser.parse_args()
    be_quiet()
    use_threads(1)
    if args.worker:
        print(json.dumps(work(args.seed, args.streams, args.codec, args.worker, args.video)))
        return 0
    result = measure(args.streams, args.workers, args.seed, args.codec, args.video)
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        taken, bound = result["memory_taken_mib"], result["memory_bound_mib"]
        print(f"{result['streams']} streams, {result['failures']} failures")
        print(f"refused: {result['refused']}, right latent: {result['right_latent']}")
        print(f"memory: {taken} MiB beyond the loaded models (bound {bound})")
        for name, spread in result["milliseconds"].items():
            print(f"milliseconds by the {name}: " + ", ".join(f"{key} {value}" for key, value in spread.items()))
    return int(result["failures"] > 0)


if __name__ == "__main__":
    sys.exit(main())
