"""The rule by which a version becomes champion, and what names the benchmarks that it was measured on."""

import pytest
import yaml

from components.tracking.lineage import benchmark_version, data_of
from components.tracking.promotion import judge

OTHER = "it was measured on other benchmarks than the champion, or at other qualities"
HELD = {"bd_rate": "-20.0", "bd_rate_high": "-15.0", "benchmarks": "a"}


def version(value="-30.0", high="-25.0", benchmarks="a", **more):
    return {"bd_rate": value, "bd_rate_high": high, "benchmarks": benchmarks, **more}


@pytest.mark.parametrize(
    ("challenger", "moves", "reason"),
    [
        (version(), True, "its BD-rate of -30.0 % (at most -25.0 %) is better than -20.0 %"),
        (version(high="-20.1"), True, "its BD-rate of -30.0 % (at most -20.1 %) is better than -20.0 %"),
        (version(high="-20.0"), False, "its interval reaches -20.0 %, and so the champion's -20.0 %"),
        (version(high="-3.0"), False, "its interval reaches -3.0 %, and so the champion's -20.0 %"),
        (version(high=""), False, "its BD-rate has no interval"),
        (version("-20.0", "-21.0"), False, "its BD-rate of -20.0 % is not better than the champion's -20.0 %"),
        (version("5.0", "6.0"), False, "its BD-rate of 5.0 % is not better than the champion's -20.0 %"),
        (version(value=""), False, "it has no BD-rate"),
        (version(benchmarks="b"), False, OTHER),
        (version(rolled_back="blind"), False, "it was rolled back (blind)"),
    ],
)
def test_the_rule(challenger, moves, reason):
    verdict = judge(challenger, HELD)
    assert (verdict.moves, verdict.reason) == (moves, reason)


def test_the_first_is_champion_unless_it_was_rolled_back():
    assert judge(version(value="", high=""), None).moves
    assert not judge(version(rolled_back="blind"), None).moves
    assert judge(version(), {"bd_rate": ""}).moves


def test_the_version_of_the_benchmarks_is_their_content_and_the_qualities(tmp_path):
    assert data_of(tmp_path) == {}
    stages = {"benchmarks": {"outs": [{"path": "data/benchmarks", "md5": "1.dir"}, {"path": "results/x", "md5": "2"}]}}
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"stages": stages}))
    data = data_of(tmp_path)
    assert data == {"data/benchmarks": "1.dir"}
    same = benchmark_version({**data, "data/shards": "3.dir"}, [0, 1])
    assert benchmark_version(data, [0, 1]) == same
    assert len({same, benchmark_version({"data/benchmarks": "4.dir"}, [0, 1]), benchmark_version(data, [0, 2])}) == 3
