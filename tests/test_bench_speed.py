"""`cotam bench speed`: what it adds up and compares. On a tiny codec, one small picture."""

import json

import numpy as np
import pytest

from benchmarks import speed as bench
from benchmarks import speed_stages
from benchmarks.speed_rate import explain
from benchmarks.speed_sides import compressai_ways, prepare
from components.scenes import render, sample_scene
from tests.small_checkout import tiny_codec_folder


def test_crops_cover_the_size_and_keep_the_middle():
    small, large = np.full((30, 90, 3), 7, np.uint8), np.zeros((100, 200, 3), np.uint8)
    large[18:82, 36:164] = 200
    first, second = bench.crops([small, large], (64, 128))
    assert first.shape == second.shape == (64, 128, 3)
    assert (first == 7).all()
    assert (second == 200).all()


def test_stages_count_calls_within_calls_once(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(speed_stages.time, "perf_counter", lambda: clock[0])

    class Owner:
        def outer(self, value):
            clock[0] += 1
            return self.inner(value)

        def inner(self, value):
            clock[0] += 2
            return value + 1

    owner, stages = Owner(), speed_stages.Stages()
    stages.watch(owner, "outer", "whole")
    stages.watch(owner, "inner", "part")
    assert owner.outer(3) == 4
    assert stages.take(5.0) == {"whole": 3.0, "other": 2.0}
    owner.inner(0)
    assert stages.take(2.0) == {"part": 2.0, "other": 0.0}


def pair(theirs, ours, sizes=(1000, 1001), between=50.0):
    way = {"compressai": (theirs, 2 * theirs), "ours": (ours, ours), "stages": {"ours": {}, "compressai": {}}}
    return {
        "encode": way,
        "decode": way,
        "bytes": dict(zip(("compressai", "ours"), sizes, strict=True)),
        "psnr": {"compressai": 30.0, "ours": 29.95},
        "between": between,
        "between_float": 52.0,
        "between_float_and_compressai": 51.0,
    }


def test_a_summary_is_of_ratios_within_pairs():
    found = bench.summarize([pair(2.0, 1.0), pair(9.0, 3.0), pair(4.0, 1.0)])
    assert found["encode"]["times_as_fast"]["median"] == 3.0
    assert found["encode"]["times_as_fast_by_processor_time"]["median"] == 6.0
    assert found["rate_percent"] == pytest.approx(0.1)
    assert found["loss"] == pytest.approx(0.05)
    assert found["within_limits"]


@pytest.mark.parametrize(
    ("change", "within"),
    [({"sizes": (1000, 1010)}, False), ({"sizes": (1000, 900)}, True), ({"between": 44.9}, False)],
)
def test_limits_hold_for_all_pairs_and_a_smaller_file_is_within_them(change, within):
    found = bench.summarize([pair(2.0, 1.0), pair(2.0, 1.0, **change), pair(2.0, 1.0, **change)])
    assert found["within_limits"] == within


def test_the_bytes_of_both_sides_are_explained(tmp_path):
    picture = np.ascontiguousarray(render(sample_scene(1, "validation", "bench"))[:64, :64])
    codec, _, models = prepare(tmp_path, tiny_codec_folder(tmp_path / "tiny"), "as it is", picture)
    found = explain(codec, models[4], [picture], 4)
    assert found["compressai"] == compressai_ways(models[4])[2](compressai_ways(models[4])[0](picture))
    assert found["ours"] == len(codec.encode([picture], 4)[0])
    strings = 2 * len(codec.config.groups)  # each ends with its coder's state
    assert 4 * strings <= found["their_states"] <= 9 * strings
    assert found["our_tables"] == pytest.approx(found["their_tables"], rel=0.1)


@pytest.fixture
def run(tmp_path, monkeypatch):
    folder = tiny_codec_folder(tmp_path / "codec")
    picture = render(sample_scene(1, "validation", "bench"))
    monkeypatch.setattr("components.evaluation.pictures.photographs", lambda: {"one": picture, "two": picture})
    monkeypatch.setattr(bench, "use_threads", lambda count: None)
    words = f"--codec {folder} --height 64 --width 64 --pictures 1 --rounds 1 --threads 1"

    def run(*more):
        monkeypatch.setattr("sys.argv", ["speed.py", *words.split(), "--sizes", "as it is", *more])
        return bench.main()

    return run


def test_it_reports_both_sides_at_three_qualities(run, capsys):
    assert run("--cold", "0", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["qualities"]) == {"0", "4", "9"}
    for found in result["qualities"].values():
        stages = found["encode"]["stages"]["ours"]
        assert {"analysis", "hyperprior", "context", "entropy coding", "other"} == set(stages)
        assert {"synthesis", "hyperprior", "context", "entropy coding", "other"} == set(
            found["decode"]["stages"]["ours"]
        )
    assert set(result["additions"]["percent"]) == {"encode", "decode"}
    bench._print(result)
    assert capsys.readouterr().out.count("times as fast") == 12
