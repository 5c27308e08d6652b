"""A sample of `cotam bench fuzz`: whatever a stream has become, the end is a clear error or the right latent.

Only how a stream ends is asked here; time and memory are measured by the benchmark, whose report is docs/fuzz.json.
"""

import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import fuzz
from components.codec import Codec
from components.codec.container import unpack
from components.paths import ROOT

REPORT = ROOT / "docs/fuzz.json"

edits = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6)


@pytest.fixture(scope="module")
def codec():
    return Codec.from_pretrained(fuzz.CODEC)


@pytest.fixture(scope="module")
def meant(codec):
    return fuzz.originals(codec)


@pytest.fixture(scope="module")
def judge(codec, meant):
    return fuzz.Judge(codec, meant)


def check_any_edits(judge, meant, data):
    """Bytes changed, an end cut off, another stream's end: by hypothesis, which shrinks what it finds."""
    stream = bytearray(data.draw(st.sampled_from(meant)))
    for place, value in data.draw(edits):
        stream[place % len(stream)] = value
    end = data.draw(st.sampled_from(meant))
    stream = bytes(stream)[: data.draw(st.integers(0, len(stream)))] + end[data.draw(st.integers(0, len(end))) :]
    length = fuzz.Mutator._length(stream)
    if data.draw(st.booleans()) and 4 <= length <= len(stream):
        stream = fuzz.seal(stream[:length]) + stream[length:]
    judge(stream)  # raises at anything else than an error of one line or a right latent


@settings(max_examples=100)
@given(st.data())
def test_any_edits_end_well(judge, meant, data):
    check_any_edits(judge, meant, data)


@pytest.mark.soak
@settings(max_examples=20_000)
@given(st.data())
def test_many_more_edits_end_well(judge, meant, data):
    check_any_edits(judge, meant, data)


def test_a_sample_of_the_fuzzer_ends_well(judge, meant):
    found = list(fuzz.run(7, 200, judge, meant))
    assert [one for one in found if one["failed"]] == []
    assert {one["kind"] for one in found} == set(fuzz.KINDS)
    ends = Counter(one["end"] for one in found)
    assert ends["right"] > 3  # words after the last one are ignored
    assert any("arithmetic disagrees" in end for end in ends)  # and the entropy model was reached


def test_what_an_encoder_did_not_mean_is_a_failure(codec, judge, meant):
    """The judge itself: a good stream of another picture, and an exception of another kind."""
    [other] = codec.encode([np.full((32, 32, 3), 90, np.uint8)], 4)
    with pytest.raises(ValueError, match="no encoder meant"):
        judge(other)
    [found] = fuzz.run(0, 1, lambda _: 1 // 0, meant)
    assert found["failed"]
    assert "ZeroDivisionError" in found["end"]


def test_mutations_reach_behind_the_header(meant):
    mutator = fuzz.Mutator(np.random.default_rng(0), meant)
    for kind in ("header", "payload"):
        for _ in range(50):
            unpack(mutator.make(kind), 1 << 32)


@pytest.mark.skipif(not REPORT.exists(), reason="no report has been made yet")
def test_the_report_is_of_enough_streams_and_names_no_failure():
    report = json.loads(REPORT.read_text())
    assert report["streams"] >= 200_000
    assert report["failures"] == 0
    assert report["refused"] + report["right_latent"] == report["streams"]
    assert report["memory_taken_mib"] <= report["memory_bound_mib"]


@pytest.mark.soak
def test_two_hundred_thousand_streams_end_well(tmp_path):
    command = [sys.executable, ROOT / "benchmarks/fuzz.py", "--json", "--streams", "200000", "--workers", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    report = json.loads(done.stdout)
    assert report["failed"] == []
    assert report["streams"] == 200_000
