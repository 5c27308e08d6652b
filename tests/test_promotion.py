"""The rule by which a version becomes champion, and what names the benchmarks that it was measured on."""

import os
import signal
import subprocess
import sys

import pytest
import yaml

from components.paths import ROOT
from components.tracking import promotion, registry
from components.tracking.lineage import benchmark_version, data_of
from components.tracking.promotion import CHAMPION, judge
from components.tracking.registry import Candidate, _mean_negated, register

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


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The address of a store of MLflow, whose tables take seconds to make: every test has a model of its own in it."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield f"sqlite:///{folder / 'mlflow.db'}"


def candidate(model, folder, rate=-20.0, high=-15.0):
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(folder.name.encode())
    return Candidate(model, folder, rate, {"benchmarks": "a"}, high)


def meanwhile(monkeypatch, module, name, act):
    """Do `act` once, right before the function `name` of `module` is called the next time."""
    function, waiting = getattr(module, name), [act]

    def interrupted(*arguments, **options):
        while waiting:
            waiting.pop()()
        return function(*arguments, **options)

    monkeypatch.setattr(module, name, interrupted)


def test_of_two_that_register_at_once_the_better_is_champion(store, tmp_path, monkeypatch, injected):
    from mlflow import MlflowClient

    register(candidate("cotam-two-at-once", tmp_path / "held"), store)
    worse, better = (
        candidate("cotam-two-at-once", tmp_path / name, rate, rate + 2)
        for name, rate in (("worse", -30.0), ("better", -40.0))
    )
    others = []
    # The worse has been judged and is about to take the alias when the better comes, takes it and is done.
    meanwhile(monkeypatch, promotion, "_crown", lambda: others.append(register(better, store)))
    done = register(worse, store)
    injected("two-registrations")
    assert others[0].champion and not done.champion
    assert done.reason == f"version {others[0].version}, which was registered at the same time, is better"
    client = MlflowClient(store)
    assert str(client.get_model_version_by_alias(worse.name, CHAMPION).version) == others[0].version
    assert client.get_model_version(worse.name, done.version).tags["promotion"] == done.reason


_KILLED = """
import os, pathlib, signal, sys
from mlflow import MlflowClient
from components.tracking.registry import Candidate, register

store, model, folder, last = sys.argv[1:]
act = getattr(MlflowClient, last)

def and_die(*arguments, **options):
    act(*arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(MlflowClient, last, and_die)
register(Candidate(model, pathlib.Path(folder), -30.0, {"benchmarks": "a"}, -25.0), store)
"""


@pytest.mark.parametrize(
    "last",
    [
        "create_model_version",
        *(
            pytest.param(name, marks=pytest.mark.soak)
            for name in ("create_run", "log_artifacts", "set_model_version_tag", "set_registered_model_tag")
        ),
        "set_registered_model_alias",
    ],
)
def test_who_is_killed_while_registering_and_registers_again_leaves_one_whole_version(store, tmp_path, injected, last):
    """SIGKILL right after one of the calls to MLflow that a registration consists of."""
    from mlflow import MlflowClient

    model = f"cotam-killed-after-{last}"
    register(candidate(model, tmp_path / "held"), store)
    better = candidate(model, tmp_path / "better", -30.0, -25.0)
    command = [sys.executable, "-c", _KILLED, store, model, str(better.folder), last]
    killed = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    injected("registration")
    client = MlflowClient(store)
    holder = client.get_model_version_by_alias(model, CHAMPION)  # there is one at every moment, with all its tags
    assert {"content_hash", "bd_rate", "bd_rate_high", "benchmarks", "promotion"} <= holder.tags.keys()

    done = register(better, store)
    assert done.champion and done.version == "2"
    versions = client.search_model_versions(f"name = '{model}'")
    assert sorted(int(one.version) for one in versions) == [1, 2]
    assert promotion.roll_back(store, model, "to see that the way back is there") == ("2", "1")


def test_who_names_an_older_version_has_passed_over_the_newer_ones(store, tmp_path):
    model = "cotam-named"
    for name, rate in (("first", -20.0), ("second", -30.0), ("third", -40.0)):
        assert register(candidate(model, tmp_path / name, rate, rate + 2), store).champion
    assert promotion.roll_back(store, model, "blind", to="1") == ("3", "1")
    done = register(candidate(model, tmp_path / "fourth", -23.0, -21.0), store)
    assert done.champion and done.version == "4"  # not the second, which the rule would prefer to it


def test_the_same_files_that_are_registered_at_once_are_one_version(store, tmp_path, monkeypatch, injected):
    from mlflow import MlflowClient

    same = candidate("cotam-same-at-once", tmp_path / "same")
    others = []
    meanwhile(monkeypatch, registry, "_create", lambda: others.append(register(same, store)))
    done = register(same, store)
    injected("two-registrations")
    assert (others[0].new, done.new) == (True, False) and done.version == others[0].version
    [version] = MlflowClient(store).search_model_versions(f"name = '{same.name}'")
    assert str(version.version) == done.version and done.champion


def test_known_files_that_are_measured_again_get_the_new_numbers(store, tmp_path):
    from mlflow import MlflowClient

    folders = {}
    for name in ("old", "new"):
        folders[name] = tmp_path / name
        folders[name].mkdir()
        (folders[name] / "model.safetensors").write_bytes(name.encode())
    model, uri = "cotam-measured-again", store

    def again(which, rate, benchmarks, high, **scores):
        tags = {"benchmarks": benchmarks, "revision": benchmarks, **{f"bd_rate.{k}": v for k, v in scores.items()}}
        return register(Candidate(model, folders[which], rate, tags, high), uri)

    def tags(version):
        return MlflowClient(uri).get_model_version(model, version).tags

    assert again("old", -20.0, "a", -15.0, pope="-20.0").champion
    assert again("new", -30.0, "b", -25.0).reason == OTHER
    done = again("old", -10.0, "b", None, gqa="-10.0")
    assert (done.version, done.new) == ("1", False)
    found = tags("1")
    assert (found["bd_rate"], found["bd_rate_high"], found["benchmarks"]) == ("-10.0", "", "b")
    assert found["bd_rate.gqa"] == "-10.0" and "bd_rate.pope" not in found
    assert found["revision"] == "a"  # of which the files are
    again("old", None, "c", None)
    assert tags("1") | {"promotion": ""} == found | {"promotion": ""}
    assert again("new", -30.0, "b", -25.0).champion
    assert int(MlflowClient(uri).get_model_version_by_alias(model, CHAMPION).version) == 2


def test_a_mean_has_an_interval_where_each_part_has_one():
    def of(*rates):
        means = {str(number): {"bd_rate": {"mean": rate}} for number, rate in enumerate(rates)}
        return _mean_negated({"jpeg": means}, list(means))

    one, other = {"value": 10.0, "low": 4.0}, {"value": 30.0, "low": 20.0}
    assert of(one, other) == (-20.0, -12.0)
    assert of(one, other, None) == (-20.0, -12.0)
    assert of(one, {"value": 30.0, "low": None}) == (-20.0, None)
    assert of(None) == (None, None)
