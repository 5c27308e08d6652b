"""Cold starts: whole processes that load the weights and code one picture, ours and CompressAI's in turns.

    python benchmarks/speed_cold.py THREADS ours|compressai encode|decode FOLDER QUALITY

is one of them; `cold` starts them.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.speed_sides import compressai, compressai_ways
from benchmarks.speed_stages import spend
from benchmarks.speed_summary import WAYS, middle, spread
from components.environment import be_quiet, use_threads
from components.paths import ROOT
from components.progress import track


def cold(folder: Path, quality: int, rounds: int, threads: int) -> dict:
    """Whole processes that code one picture: medians and ratios within pairs.

    Args:
        folder: what `prepare` made.
        quality: one of those prepared.
        rounds: pairs.
        threads: of every process.
    """
    spent: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    for turn in track(range(rounds), f"Cold starts, quality {quality}"):
        for way in WAYS:
            pair = [0.0, 0.0]
            for k in (0, 1) if turn % 2 else (1, 0):
                who = ("compressai", "ours")[k]
                pair[k] = _process([who, way, str(folder), str(quality)], threads)
            spent[way].append(pair)
    return {
        way: {
            "compressai_s": middle(pair[0] for pair in pairs),
            "ours_s": middle(pair[1] for pair in pairs),
            "times_as_fast": spread([pair[0] / pair[1] for pair in pairs]),
        }
        for way, pairs in spent.items()
    }


def _process(words: Sequence[str], threads: int) -> float:
    """Seconds of a new process that does one thing (`main`), less those that it says do not count."""
    search = os.pathsep.join(path for path in (str(ROOT), os.environ.get("PYTHONPATH")) if path)
    command = [sys.executable, "-W", "ignore", str(Path(__file__).resolve()), str(threads)]
    start = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": search}
    done = subprocess.run([*command, *words], env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return time.perf_counter() - start - float(done.stdout.split()[-1])


def once(who: str, way: str, folder: Path, quality: int) -> float:
    """What a cold process does: load the weights and code the one picture there.

    Returns:
        Seconds spent on what is only done for the comparison.
    """
    picture = np.load(folder / "picture.npy")
    if who == "ours":
        from components.codec.codec import Codec

        codec = Codec.from_pretrained(folder / "codec", fast=True)
        stream = folder / f"{quality}.cotam"
        if way == "encode":
            stream.write_bytes(codec.encode([picture], quality)[0])
        else:
            codec.decode([stream.read_bytes()])
        return 0.0
    import benchmarks.compressai_elic  # noqa: F401 - its imports count, what it makes of our weights does not
    from components.codec.folder import load_codec

    loaded = load_codec(folder / "codec")
    (uncounted, _), model = spend(partial(compressai, loaded, quality))
    encode, decode, _ = compressai_ways(model)
    stream = folder / f"{quality}.strings"
    if way == "encode":
        found = encode(picture)
        stream.write_text(json.dumps({"shape": list(found["shape"]), "strings": found["strings"]}, default=bytes.hex))
    else:
        found = json.loads(stream.read_text())
        decode({"shape": tuple(found["shape"]), "strings": _from_hex(found["strings"])})
    return uncounted


def _from_hex(part: str | list) -> bytes | list:
    return bytes.fromhex(part) if isinstance(part, str) else [_from_hex(one) for one in part]


def main() -> None:
    """One cold process; prints the seconds that do not count."""
    threads, who, way, folder, quality = sys.argv[1:]
    be_quiet()
    use_threads(int(threads))
    print(once(who, way, Path(folder), int(quality)))


if __name__ == "__main__":
    main()
