"""`make demo`, from nothing and again."""

import re

import httpx

from components import config
from components.files import read_json, sha256, sha256_tree
from components.tracking.client import TrackingClient, tags
from flows import services
from flows.stage_times import of_flow_run
from tests.made_up_summary import RATES
from tests.pipeline_project import STAGES, clone, dvc, ledger

RESULTS = ("results/joint", "results/report/index.html", "results/report/summary.json", "results/count.txt")


def experiments(project):
    """The parent runs in MLflow, newest first."""
    client = TrackingClient(services.urls(project)["mlflow"])
    return client, client.search_runs([client.experiment("cotam")], "tags.kind = 'experiment'")


def hashes(folder):
    """What a run has found, as hashes."""
    paths = {name: folder / name for name in RESULTS}
    return {name: sha256_tree(path) if path.is_dir() else sha256(path) for name, path in paths.items()}


def test_first_demo_runs_every_stage_and_shows_it(first_demo):
    assert first_demo.code == 0, first_demo.out + first_demo.err
    assert sorted(first_demo.ran) == ["count", "joint", "render", "report"]
    assert first_demo.ran[0] == "render" and first_demo.ran[-1] == "report"
    for stage in STAGES:
        assert f"  {stage:32} done after " in first_demo.out
    assert "    report | the report is being written\n" in first_demo.out
    assert "dvc config core.autostage" not in first_demo.out


def test_first_demo_prints_the_tables_and_where_the_report_is(first_demo, project):
    assert "BD-rate against ELIC" in first_demo.out
    assert f"Report: {project}/results/report/index.html\n" in first_demo.out
    about = read_json(project / "results/report/run.json")
    assert about["dirty"] is False and about["seconds"] > 0 and len(about["revision"]) == 40


def test_first_demo_says_what_was_spent_around_the_stages(first_demo):
    said = re.search(r"Done in (\d+) s: (\d+) s in stages, (\d+) s \((\d+) %\) around them\.", first_demo.out)
    whole, busy, around, share = map(int, said.groups())
    assert abs(whole - busy - around) <= 1 and abs(share - 100 * around / whole) <= 5


def test_the_benchmark_of_overhead_reads_a_finished_run(running, capsys):
    from benchmarks.overhead import main, measure

    uri = services.urls(running)["mlflow"]
    client, runs = experiments(running)
    oldest = [run for run in runs if run["info"]["status"] == "FINISHED"][-1]
    first = oldest["info"]["run_id"]
    assert of_flow_run(client, tags(oldest)["prefect_flow_run"])["info"]["run_id"] == first
    assert of_flow_run(client, "0" * 32) is None
    times = measure(uri, first)
    assert sorted(times.stages) == STAGES
    assert 0 < times.busy < times.whole
    assert main(["--project", str(running), "--run", first]) == 0
    assert re.search(r"around +[\d.]+ s, [\d.]+ % of the run", capsys.readouterr().out)
    assert main(["--project", str(running), "--run", "0" * 32]) == 1
    assert capsys.readouterr().err.strip() == f"MLflow at {uri} has no run {'0' * 32}."


def test_first_demo_stops_what_it_started(first_demo):
    assert first_demo.left == []


def test_dvc_repro_gives_the_same(first_demo, project, tmp_path):
    other = clone(project, tmp_path / "second")
    dvc(other, "repro")
    assert sorted(ledger(project)) == ["count", "joint", "render", "report"]
    assert hashes(other) == hashes(project)


def test_second_demo_runs_nothing_and_its_runs_are_not_empty(running, demo):
    before = hashes(running)
    second = demo()
    assert second.code == 0, second.out + second.err
    assert ledger(running) == []
    assert hashes(running) == before
    assert "Using the services that are running." in second.out
    assert {service["state"] for service in services.status(running).values()} == {"running"}

    client, [parent, *_] = experiments(running)
    assert parent["info"]["status"] == "FINISHED"
    children = client.children(parent)
    assert sorted(children) == STAGES
    assert all("cached_from" in tags(child) for child in children.values())
    assert all(child["info"]["status"] == "FINISHED" for child in children.values())
    joint = children["joint@elic-micro-llava"]
    assert {metric["key"]: metric["value"] for metric in joint["data"]["metrics"]} == {"high.final": 0.25}
    assert {"key": "adapter.lambda_high", "value": "1.0"} in joint["data"]["params"]
    original = client.get_run(tags(joint)["cached_from"])
    assert {metric["key"] for metric in original["data"]["metrics"]} == {"high.final", "loss"}


def test_curves_are_metrics_over_thousandths_of_a_bit_per_pixel(running):
    client, runs = experiments(running)
    finished = next(run for run in runs if run["info"]["status"] == "FINISHED")
    query = {"run_id": finished["info"]["run_id"], "metric_key": "score/elic.cotam.micro-llava/mean"}
    reply = httpx.get(f"{client.uri}/api/2.0/mlflow/metrics/get-history", params=query)
    history = reply.json()["metrics"]
    assert [int(point["step"]) for point in history] == [round(1000 * bpp) for bpp in RATES]
    values = {metric["key"]: metric["value"] for metric in finished["data"]["metrics"]}
    assert values["bd_rate/elic.cotam.micro-llava/mean"] == -31.0
    assert "score/elic.clean.micro-llava/mean" in values


def test_every_setting_is_a_parameter_of_the_run(running):
    _, [newest, *_] = experiments(running)
    params = {param["key"]: param["value"] for param in newest["data"]["params"]}
    settings = config.load(running / "params.yaml")
    assert params["adapter.lambda_low"] == str(settings.adapter.lambda_low)
    assert params["scenes.images"] == str(settings.scenes.images)


def test_all_of_prefect_yaml_is_deployed(running):
    api = services.environment(running)["PREFECT_API_URL"]
    found = httpx.post(f"{api}/deployments/filter", json={}).json()
    flows = {flow["id"]: flow["name"] for flow in httpx.post(f"{api}/flows/filter", json={}).json()}
    deployed = {f"{flows[one['flow_id']]}/{one['name']}": one["work_pool_name"] for one in found}
    assert deployed == {
        "train-and-eval/local": "local",
        "ablations/local": "local",
        "ablations/cluster": "cluster",
        "shard-dataset/local": "local",
        "run-stage/analysis": "cpu",
        "run-stage/cpu": "cpu",
        "run-stage/gpu": "gpu",
        "train-and-eval/cluster": "cluster",
        "shard-dataset/cluster": "cluster",
        "shard-part/cpu": "cpu",
        "shard-part/cluster-cpu": "cluster-cpu",
        "run-stage/cluster-cpu": "cluster-cpu",
        "run-stage/cluster-gpu": "cluster-gpu",
    }


def test_nobody_speaks_to_the_outside(running, network):
    lines = network.read_text().splitlines()
    assert any("flows.workers" in line or "flows/workers.py" in line for line in lines)  # the watch works
    hosts = {line.split(" ", 1)[0] for line in lines if not line.startswith("a socket file")}
    assert hosts <= {"127.0.0.1", "localhost", "::1", "None"}, [line for line in lines if "127.0.0.1" not in line]
