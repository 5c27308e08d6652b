"""A folder of files, each turned into another: the same names below another folder, several processes at once.

Nothing but the files themselves says how far a run came: an output is either whole or absent, and one that is there and
not older than its source is not made again. So a run that was killed goes on when it is started again.
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from components.errors import CotamError

Convert = Callable[[Path, Path], dict]
"""Reads the first file, writes the second, and says what it did."""


@dataclass(frozen=True)
class Pair:
    """A file and what it is to become."""

    source: Path
    out: Path


def check_folders(source: Path, out: Path | None, kinds: Collection[str]) -> Path:
    """The folder to write into.

    Args:
        source: the folder to read.
        out: what -o names.
        kinds: suffixes of the files that the command writes: `out` should not look like one of them.

    Raises:
        CotamError: there is none, or it is a file.
    """
    if out is None:
        raise CotamError(f"{source} is a folder; name the folder to write into with -o.")
    if not out.is_dir() and (out == Path("-") or out.exists() or out.suffix.lower() in kinds):
        raise CotamError(f"{source} is a folder, so -o names a folder to write into, and {out} is none.")
    return out


@dataclass(frozen=True)
class Plan:
    """What there is to do, sorted by name; and how many files were left out, by their ending."""

    pairs: list[Pair]
    ignored: dict[str, int]


def plan(source: Path, out: Path, suffixes: Collection[str], suffix: str) -> Plan:
    """What a folder holds.

    Args:
        source: searched with all folders in it; hidden files, and links to folders, are left out.
        out: where the same names go, with another ending.
        suffixes: lower-case endings of the files to take.
        suffix: the ending of what is written.

    Raises:
        CotamError: a folder cannot be read, holds no such file, or two files would be written under one name.
    """
    found: dict[Path, Path] = {}
    ignored: Counter[str] = Counter()
    for folder, folders, names in os.walk(source, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            if name.startswith("."):
                continue
            if path.suffix.lower() not in suffixes or (path.exists() and not path.is_file()):
                ignored[path.suffix.lower() or "without ending"] += 1
                continue
            target = (out / path.relative_to(source)).with_suffix(suffix)
            other = found.setdefault(target, path)
            if other != path:
                raise CotamError(f"{other} and {path} would both become {target}; rename one of them.")
    if not found:
        raise CotamError(f"{source} holds no file to take ({', '.join(sorted(suffixes))}); name another folder.")
    return Plan([Pair(path, target) for target, path in found.items()], dict(sorted(ignored.items())))


def _raise(error: OSError) -> None:
    raise error


def is_newer(pair: Pair) -> bool:
    """Whether the output is there and not older than its source."""
    try:
        return pair.out.stat().st_mtime_ns >= pair.source.stat().st_mtime_ns
    except OSError:
        return False


def convert(pairs: list[Pair], start: Callable[[], Convert], workers: int, title: str) -> list[dict]:
    """Do all of it, with a progress bar.

    Args:
        pairs: what there is to do.
        start: called once in each process.
        workers: how many processes.
        title: what the progress bar says.

    Returns:
        For each file what was said of it, or its "source" and "error", sorted by name. Errors are also printed.
    """
    from components.progress import track
    from components.workers import run_jobs

    def begin() -> Callable[[Pair], dict]:
        do = start()

        def attempt(pair: Pair) -> dict:
            try:
                return do(pair.source, pair.out)
            except (CotamError, OSError, MemoryError, RuntimeError) as error:  # torch: RuntimeError without memory
                text = str(error) or type(error).__name__
                return {"source": str(pair.source), "error": text if text.endswith(".") else f"{text}."}

        return attempt

    jobs = run_jobs(pairs, begin, workers, advice="run with fewer --workers")
    results = [result for _, result in track(jobs, title, len(pairs))]
    results.sort(key=lambda result: result["source"])
    for result in results:
        if "error" in result:
            text, source = result["error"], result["source"]
            print(f"cotam: {text if text.startswith(source) else f'{source}: {text}'}", file=sys.stderr)
    return results


def report(folder: Path, plan: Plan, results: list[dict], as_json: bool, summary: Callable[[list[dict]], str]) -> int:
    """Print what came of it; the exit code.

    Args:
        folder: that was written into.
        plan: what there was to do.
        results: what was done; the files that are not among them were up to date.
        as_json: all of it as JSON, instead of one line.
        summary: what to say of the files that were made.
    """
    made = [result for result in results if "error" not in result]
    failed = [result for result in results if "error" in result]
    current = len(plan.pairs) - len(results)
    if as_json:
        found = {"folder": str(folder), "files": made, "up_to_date": current, "failed": failed, "ignored": plan.ignored}
        print(json.dumps(found, indent=2))
        return int(bool(failed))
    parts = [f"{len(made)} file{'s' * (len(made) != 1)} written{summary(made) if made else ''}"]
    if current:
        parts.append(f"{current} up to date")
    if failed:
        parts.append(f"{len(failed)} failed")
    if plan.ignored:
        parts.append("left out: " + ", ".join(f"{count} {ending}" for ending, count in plan.ignored.items()))
    print(f"{folder}: {'; '.join(parts)}")
    return int(bool(failed))
