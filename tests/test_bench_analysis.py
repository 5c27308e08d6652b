"""`cotam bench analysis`: both sides end with the same numbers, which it checks itself. On a tiny tower."""

import json

import pytest

from benchmarks import analysis as bench
from components.analysis.towers import open_tower
from tests.models import tiny_clip_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_clip_folder(tmp_path_factory.mktemp("tower"))


def test_it_measures_both_sides_and_the_tower_alone(folder):
    found = bench.measure(lambda: open_tower(folder), images=3, repeats=2, batch=2)
    assert set(found["milliseconds_per_image"]) == set(bench.WAYS)
    assert all(time > 0 for time in found["milliseconds_per_image"].values())
    assert found["ratio"]["lowest"] <= found["ratio"]["median"] <= found["ratio"]["highest"]
    assert found["images_of_megabytes"] == [3, 12]
    assert (found["layers"], found["tokens"]) == (4, 65)


def test_it_would_notice_other_numbers(folder, monkeypatch):
    monkeypatch.setitem(bench.WAYS, "kept, read fast", lambda *_: bench.streamed(*_) + 1)
    with pytest.raises(AssertionError, match="Not equal"):
        bench.measure(lambda: open_tower(folder), images=1, repeats=1, batch=1)


def test_it_reports(folder, monkeypatch, capsys):
    words = ["analysis", "--tower", str(folder), "--images", "2", "--batch", "2", "--repeats", "1"]
    monkeypatch.setattr("sys.argv", [*words, "--json"])
    assert bench.main() == 0
    assert json.loads(capsys.readouterr().out)["images"] == 2
    monkeypatch.setattr("sys.argv", words)
    assert bench.main() == 0
    assert "kept / streamed" in capsys.readouterr().out
