"""Running a step: it sees what it declares, writes all or nothing, and finds its work again after a kill."""

import contextlib
import json
import shutil
import sys

import pytest

from components import config, step_run, steps
from components.errors import CotamError
from components.locks import stage_lock
from components.paths import Paths, instance_name
from components.step_inputs import Params
from components.steps import declared, find, instances, run_step


@pytest.fixture
def step(monkeypatch, checkout):
    """Replace the module of a step by a function, and run it in an empty checkout."""

    def run(name, function, **instance):
        module = type(sys)("stand_in")
        module.run = function
        monkeypatch.setitem(sys.modules, find(name).module, module)
        run_step(name, paths=Paths(checkout), **instance)

    return run


def write_all(name):
    def run(inputs):
        for result in find(name).outs + find(name).metrics or ("file",):
            (inputs.out / result).write_text(json.dumps(inputs.params.as_dict()))

    return run


def test_params_are_read_by_attribute_or_by_name_and_never_changed():
    params = Params({"adapter": {"batch": 32}, "qualities": [1, 2], "codec": {"elic-micro": {"weights": "x"}}})
    assert params.adapter.batch == params["adapter"]["batch"] == 32
    assert params.qualities == (1, 2)
    assert params.codec["elic-micro"].weights == "x"
    assert list(params) == ["adapter", "qualities", "codec"]
    assert params.as_dict()["adapter"] == {"batch": 32}
    with pytest.raises(AttributeError, match=r"adapter\.batch is frozen"):
        params.adapter.batch = 1


def test_a_setting_that_is_not_declared_cannot_be_read(step):
    def run(inputs):
        assert inputs.params.scenes.size == 128
        return inputs.params.adapter

    with pytest.raises(CotamError, match=r"may not read the setting adapter; declare it"):
        step("render", run)


def test_a_step_sees_only_its_own_variant():
    settings = config.load(overrides={"codec": "{elic: {weights: a}, dcae: {weights: b}}", "codecs": "[elic, dcae]"})
    rate = find("rate")
    assert list(instances(rate, settings)) == [{"codec": "elic"}, {"codec": "dcae"}]
    assert declared(rate, settings, {"codec": "dcae"})["codec"] == {"dcae": {"weights": "b"}}
    assert "lambda_high" not in declared(find("warmup"), settings, {"codec": "elic", "mllm": "micro-llava"})["adapter"]


def test_a_step_is_told_its_task(step, checkout):
    params = checkout / "params.yaml"
    params.write_text(params.read_text().replace("tasks: []", "tasks: [mme, pope]"))
    run_step("weights", paths=Paths(checkout))
    (checkout / "results/joint/elic-micro-llava/adapter").mkdir(parents=True)
    told = []
    step("evaluate-task", lambda inputs: (told.append(inputs.task), write_all("evaluate-task")(inputs)), task="pope")
    assert told == ["pope"]
    assert (checkout / "results/scores/elic-micro-llava/tasks/pope/scores.json").exists()


def test_every_setting_is_read_by_a_step_and_every_declared_setting_exists():
    settings = config.load()
    seen = set()
    for step in (*steps.STEPS, *steps.ABLATION_STEPS):
        for instance in instances(step, settings):
            if step.name not in ("report", "verdicts"):  # which read all, to show them
                seen |= {key for key, _ in config.dotted_keys(declared(step, settings, instance))}
    settings = settings.model_dump(exclude={"variants"}, exclude_defaults=True)  # what nobody sets is not there
    everything = {key for key, value in config.dotted_keys(settings) if not isinstance(value, dict)}
    assert everything - seen == {"evaluation.bootstrap", "evaluation.tasks", "more_seeds"}


def test_results_appear_when_the_step_has_ended_and_replace_the_old_ones(step, checkout):
    report = checkout / "results/report"
    report.mkdir(parents=True)
    (report / "run.json").write_text("kept: it is not the step's")
    for name in find("report").deps:
        (checkout / name).mkdir(parents=True, exist_ok=True)

    def run(inputs):
        assert sorted(path.name for path in report.iterdir()) == ["run.json"]
        write_all("report")(inputs)

    step("report", run)
    assert sorted(path.name for path in report.iterdir()) == ["index.html", "run.json", "summary.json"]
    assert json.loads((report / "summary.json").read_text())["adapter"]["lambda_high"] == 1.0
    assert not list(checkout.rglob("*.tmp"))


def test_a_step_that_fails_keeps_its_work_and_leaves_the_old_results(step, checkout):
    step("render", write_all("render"))
    before = (checkout / "data/scenes/file").read_text()

    def fail(inputs):
        (inputs.work / "checkpoint").write_text("half way")
        (inputs.out / "file").write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        step("render", fail)
    assert (checkout / "data/scenes/file").read_text() == before

    found = []

    def go_on(inputs):
        found.append((inputs.work / "checkpoint").read_text())
        assert not list(inputs.out.iterdir())
        write_all("render")(inputs)

    step("render", go_on)
    assert found == ["half way"]
    assert not (checkout / ".cotam/work/render").exists()


def test_work_is_not_found_again_when_an_input_changed(step, checkout):
    folders = []

    def fail(inputs):
        folders.append(inputs.work)
        raise RuntimeError

    params = checkout / "params.yaml"
    (checkout / "data/scenes").mkdir(parents=True)
    for change in (
        lambda: None,
        lambda: params.write_text(params.read_text().replace("minimum_side: 32", "minimum_side: 33")),
        lambda: params.write_text(params.read_text().replace("lambda_high: 1.0", "lambda_high: 2.0")),  # not its own
        lambda: (checkout / "data/scenes/0.png").write_text("an image"),
    ):
        change()
        with pytest.raises(RuntimeError):
            step("shard", fail)
    first, other_settings, unrelated, other_data = folders
    assert unrelated == other_settings
    assert len({first, other_settings, other_data}) == 3


@pytest.fixture
def run_meanwhile(monkeypatch):
    """Have something happen while the next step waits for its lock: somebody else had it."""

    def set_up(happens):
        waiting = [happens]

        @contextlib.contextmanager
        def lock(name, paths):
            if waiting:
                waiting.pop()()
            with stage_lock(name, paths):
                yield

        monkeypatch.setattr(step_run, "stage_lock", lock)

    return set_up


def test_who_waited_for_the_same_step_takes_its_results(step, checkout, run_meanwhile, capsys):
    run_meanwhile(lambda: step("render", write_all("render")))
    step("render", pytest.fail)
    assert (checkout / "data/scenes/file").exists()
    assert "Another process has run render on the same inputs meanwhile" in capsys.readouterr().err
    done = []
    step("render", lambda inputs: (done.append(inputs), write_all("render")(inputs)))
    assert done  # nobody was waited for


@pytest.mark.parametrize("what", ["other settings", "no results", "a failure"])
def test_who_waited_for_something_else_runs(step, checkout, run_meanwhile, what):
    params, results = checkout / "params.yaml", checkout / "data/scenes"
    step("render", write_all("render"))

    def happens():
        if what == "a failure":
            with pytest.raises(RuntimeError):
                step("render", fail)
            return
        if what == "other settings":
            params.write_text(params.read_text().replace("seed: 7", "seed: 8"))
        step("render", write_all("render"))
        if what == "no results":
            shutil.rmtree(results)

    def fail(inputs):
        raise RuntimeError

    run_meanwhile(happens)
    done = []
    step("render", lambda inputs: (done.append(inputs), write_all("render")(inputs)))
    assert done and (results / "file").exists()


@pytest.mark.parametrize("names", [[], ["index.html"], ["index.html", "summary.json", "more"]])
def test_a_step_must_write_what_it_declares(step, checkout, names):
    for name in find("report").deps:
        (checkout / name).mkdir(parents=True, exist_ok=True)

    def run(inputs):
        for name in names:
            (inputs.out / name).touch()

    with pytest.raises(CotamError, match=r"should write index\.html, summary\.json but wrote"):
        step("report", run)
    assert not (checkout / "results/report").exists()


def test_missing_inputs_and_wrong_instances_are_said(step):
    with pytest.raises(CotamError, match=r"needs data/scenes, which is not there; run `dvc repro`"):
        step("shard", write_all("shard"))
    with pytest.raises(CotamError, match=r"run with one of: --codec elic\.$"):
        step("rate", write_all("rate"), codec="dcae")
    with pytest.raises(CotamError, match=r"run with one of: no options\.$"):
        step("render", write_all("render"), codec="elic")
    with pytest.raises(CotamError, match=r"evaluate-task is not run: evaluation\.tasks in params\.yaml is empty\.$"):
        step("evaluate-task", write_all("evaluate-task"), task="mme")
    with pytest.raises(CotamError, match="There is no step nothing; the steps are weights, render"):
        find("nothing")


def test_the_weights_step_notices_other_bytes(checkout):
    def hashes():
        run_step("weights", paths=Paths(checkout))
        return json.loads((checkout / "data/weights.json").read_text())

    before = hashes()
    (checkout / "pretrained/mllm/micro-llava/config.json").write_text("{}")
    after = hashes()
    assert after["mllm"] != before["mllm"]
    assert (after["codec"], after["tower"]) == (before["codec"], before["tower"])


def test_instances_are_named_as_dvc_names_them():
    assert instance_name() == ""
    assert instance_name("elic") == "elic"
    assert instance_name("elic", "micro-llava") == "elic-micro-llava"
