"""The table of faults in docs/operations.md says what was recorded, of every fault, and never of a failure."""

import json
import subprocess
import sys

import pytest

from components.files import read_json
from components.paths import ROOT
from tests.faults import FAULTS, PAGE, RECORD, document, table

_TESTS = """
import pytest

def test_breaks_much(injected):
    injected("stage", 2)
    injected("stage")
    injected("worker")

@pytest.mark.soak
@pytest.mark.parametrize("works", [True, False])
def test_breaks_and_may_fail(injected, works):
    injected("s3")
    assert works

def test_fails_before_it_breaks_anything(injected):
    assert False
    injected("demo")

@pytest.fixture
def refuses():
    pytest.skip("no machines here")

def test_is_skipped(refuses, injected):
    injected("machine")

def test_breaks_nothing():
    pass
"""


def test_the_page_says_what_was_recorded():
    assert document(read_json(RECORD)) == PAGE.read_text(), "run python -m tests.faults docs/faults.json"


def test_only_tests_that_are_there_are_counted():
    for test in read_json(RECORD)["tests"]:
        file, _, name = test.partition("::")
        assert f"def {name.partition('[')[0]}(" in (ROOT / file).read_text(), f"take {test} out of {RECORD}"


def test_every_fault_was_injected():
    recorded = {fault for one in read_json(RECORD)["tests"].values() for fault in one["injected"]}
    assert recorded == FAULTS.keys()


def test_a_run_writes_what_its_tests_injected(tmp_path):
    (tmp_path / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text())
    (tmp_path / "test_some.py").write_text(_TESTS)
    record = tmp_path / "out/faults.json"
    record.parent.mkdir()
    known = {"injected": {"s3": 5}, "passed": True, "run": "test"}
    old = {f"test_some.py::{name}": known for name in ("test_it", "test_is_skipped")}
    record.write_text(json.dumps({"tests": old}))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml")]
    environment = {"PATH": "/usr/bin:/bin", "COTAM_FAULTS": str(record), "PYTHONPATH": str(ROOT)}
    command += ["--rootdir", str(tmp_path), "-m", "fault", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "2 failed, 2 passed, 1 skipped, 1 deselected" in done.stdout, done.stdout + done.stderr
    found = {test.partition("::")[2]: one for test, one in read_json(record)["tests"].items()}
    assert found["test_it"] == found["test_is_skipped"] == known
    early = found.pop("test_fails_before_it_breaks_anything")
    assert early["injected"] == {} and not early["passed"]
    with pytest.raises(ValueError, match="test_early failed"):
        table({"tests": {"test_early": early}})
    assert found["test_breaks_much"]["injected"] == {"stage": 3, "worker": 1}
    assert found["test_breaks_much"]["passed"] and found["test_breaks_much"]["run"] == "test"
    assert found["test_breaks_and_may_fail[True]"]["passed"] and not found["test_breaks_and_may_fail[False]"]["passed"]
    assert found["test_breaks_and_may_fail[True]"]["run"] == "soak" and "test_breaks_nothing" not in found
    with pytest.raises(ValueError, match=r"test_breaks_and_may_fail\[False\] failed"):
        table({"tests": found})


def test_the_table_counts():
    one = {"date": "2026-11-28", "revision": "abc", "passed": True}
    tests = {
        "tests/flows/test_a.py::test_x": {**one, "run": "test", "injected": {"stage": 2}},
        "tests/test_b.py::test_y": {**one, "run": "soak", "injected": {"stage": 3, "machine": 1}},
        "tests/test_b.py::test_z": {**one, "run": "cluster", "injected": {"machine": 1}},
    }
    rows = {line.split(" | ")[0][2:]: line.split(" | ")[1:3] for line in table({"tests": tests}).splitlines()[2:]}
    assert rows[FAULTS["stage"].what] == ["test_a, test_b", "2, 5, -"]
    assert rows[FAULTS["machine"].what] == ["test_b", "-, 1, 1"]
