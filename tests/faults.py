"""What the tests break on purpose, how often, and what it cost: the table in docs/operations.md.

A test that injects a fault says so when it does (the fixture `injected`). With COTAM_FAULTS=FILE a run of pytest writes
into FILE what its tests have injected and whether they passed, beside what other runs wrote there; `make soak` and
`make cluster-test` do. `python -m tests.faults FILE` keeps that as docs/faults.json and renews the table.
"""

import datetime
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from components.files import atomic_write, read_json, write_json
from components.paths import ROOT

RECORD, PAGE = ROOT / "docs/faults.json", ROOT / "docs/operations.md"
BEGIN, END = "<!-- faults: made by `python -m tests.faults` -->", "<!-- end of faults -->"
AGAIN, ITSELF = "the same command again", "by itself"


@dataclass(frozen=True)
class Fault:
    """One kind: what happens, how things go on, and what is lost."""

    what: str
    afterwards: str
    lost: str = "nothing"


FAULTS = {
    "stage": Fault("SIGKILL of a running stage", f"{AGAIN}; with `retries`, {ITSELF}"),
    "worker": Fault("SIGKILL of the worker, with its stage", AGAIN),
    "prefect": Fault("SIGKILL of Prefect's server during a run", AGAIN),
    "mlflow": Fault("SIGKILL of MLflow, during a run or while nothing runs", f"{AGAIN}, or `cotam services up`"),
    "demo": Fault("SIGKILL of `make demo` itself", AGAIN),
    "postgres": Fault("SIGKILL of PostgreSQL during a run", AGAIN),
    "s3": Fault("SIGKILL of the S3 server during a run", AGAIN),
    "machine": Fault(
        "power cut of a worker's machine", f"{ITSELF}, on another machine", "the time of the stage that ran"
    ),
    "unstarted": Fault(
        "a worker takes a run, and no heartbeat comes (a run that is set to Pending; the rule with a patience of 10 s)",
        f"{ITSELF}: called crashed",
    ),
    "rank": Fault(
        "SIGKILL of one of two training processes, started by torch's own agent and as `cotam step` starts them",
        f"{ITSELF}, from the last checkpoint",
        "the steps since then",
    ),
    "training": Fault("SIGKILL of a training in one process", AGAIN, "the steps since the last checkpoint"),
    "sharding": Fault(
        "SIGKILL while shards are written: of a folder, of a part, of the worker that runs parts",
        "run again; finished shards and parts are kept",
    ),
    "registration": Fault(
        "SIGKILL within a registration, right after one of its calls to MLflow",
        f"{AGAIN}: one whole version, and a champion at every moment",
    ),
    "requests": Fault(
        "S3 answers 500 or 503, cuts the connection, or cuts an answer: 10 % of the requests of a sharding, of a "
        "training, of `dvc push` and `dvc pull`",
        f"{ITSELF}: asked again",
    ),
    "remote-shard": Fault(
        "a shard on S3 that is trained from is replaced, cut, removed, or has a flipped bit",
        "one sentence before anything is learned from it",
    ),
    "shard": Fault(
        "a shard with a flipped bit, or cut short, is read by a training",
        "one sentence before anything is learned from it; `dvc pull`",
    ),
    "shard-cache": Fault("a damaged place in the cache of shards from S3", f"{ITSELF}: fetched again"),
    "picture": Fault(
        "a picture cut short, or with a flipped bit, among those to pack",
        f"{ITSELF}: skipped, and named in the manifest",
        "those pictures",
    ),
    "archive": Fault(
        "names with `../`, absolute names and links in a tar of pictures", f"{ITSELF}: nothing is written outside"
    ),
    "full-training": Fault(
        "no room for a training's checkpoint", "one sentence; run again", "the steps since the last checkpoint"
    ),
    "full": Fault(
        "no room for shards, `cotam encode`, `cotam decode`", "one sentence; nothing half-written; run again"
    ),
    "clock": Fault(
        "a worker's clock is 60 s behind or an hour ahead (the server's answers carry the shifted time)",
        "one sentence; it does not join",
    ),
    "two-starts": Fault("two people start the same pipeline at the same moment", f"{ITSELF}: each stage runs once"),
    "two-registrations": Fault(
        "two runs register at the same moment, one within the other, at the worst place", ITSELF
    ),
}
"""By the name that tests give. No room: a limit on the size of files, for which the kernel gives another error."""

Injected = Callable[..., None]


@pytest.fixture
def injected(request) -> Injected:
    """Called with a fault's name, and how often if not once, when a test has injected it."""

    def note(fault: str, times: int = 1) -> None:
        assert fault in FAULTS and times > 0
        request.node.user_properties.append(("fault", (fault, times)))

    return note


def pytest_collection_modifyitems(items) -> None:
    """`pytest -m fault` runs those alone that inject faults."""
    for item in items:
        if "injected" in item.fixturenames:
            item.add_marker(pytest.mark.fault)
            runs_in = next((name for name in ("cluster", "soak") if item.get_closest_marker(name)), "test")
            item.user_properties.append(("run", runs_in))


_seen: dict[str, dict] = {}


def pytest_runtest_logreport(report) -> None:
    """Note what a test injected, and whether it passed: its set-up and clearing away too. One that was skipped says
    nothing, and what is recorded of it stays."""
    properties = dict(report.user_properties)
    if "run" not in properties or report.skipped:
        return
    if report.when == "call" or report.failed:
        _seen.setdefault(report.nodeid, {"run": properties["run"], "passed": True, "injected": {}})
    elif report.nodeid not in _seen:
        return
    entry = _seen[report.nodeid]
    entry["passed"] &= report.passed
    if report.when == "call":
        for name, value in report.user_properties:
            if name == "fault":
                fault, times = value
                entry["injected"][fault] = entry["injected"].get(fault, 0) + times


def pytest_sessionfinish() -> None:
    """Write all of it."""
    if (name := os.environ.get("COTAM_FAULTS")) and _seen:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        known = read_json(path)["tests"] if path.exists() else {}
        revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
        when = {"date": datetime.date.today().isoformat(), "revision": revision.stdout.strip()}
        write_json(path, {"tests": dict(sorted((known | {name: one | when for name, one in _seen.items()}).items()))})


def table(record: dict) -> str:
    """The faults as a table of Markdown, with what `record` (of docs/faults.json) says of them."""
    if failed := [test for test, one in record["tests"].items() if not one["passed"]]:
        raise ValueError(f"{failed[0]} failed: mend that first")
    lines = ["| fault | injected by | times: `make test`, `make soak`, `make cluster-test` | afterwards | lost |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for name, fault in FAULTS.items():
        tests = {test: one for test, one in record["tests"].items() if one["injected"].get(name)}
        times = {
            run: sum(one["injected"][name] for one in tests.values() if one["run"] == run)
            for run in ("test", "soak", "cluster")
        }
        times["soak"] += times["test"]  # which runs those too
        files = sorted({test.partition("::")[0].rpartition("/")[2].removesuffix(".py") for test in tests})
        counts = ", ".join(str(count) if count else "-" for count in times.values())
        lines.append(f"| {fault.what} | {', '.join(files)} | {counts} | {fault.afterwards} | {fault.lost} |")
    return "\n".join(lines)


def document(record: dict) -> str:
    """docs/operations.md with that table in it."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table(record)}\n{END}{after}"


if __name__ == "__main__":
    found = json.loads(Path(sys.argv[1]).read_text())
    atomic_write(PAGE, document(found))
    write_json(RECORD, found)
