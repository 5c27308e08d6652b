"""The DVC stage of the analysis: it depends on its code, its inputs are of the main graph, and Prefect can run it."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from components.closure import import_closure
from components.paths import ROOT
from flows.run_stage import StageFailed, reproduce, stage_command

STAGE = "pipelines/analysis/dvc.yaml:analyze"


def stage() -> dict:
    return yaml.safe_load((ROOT / "pipelines/analysis/dvc.yaml").read_text())["stages"]["analyze"]


def test_it_depends_on_all_of_its_code_and_on_nothing_that_is_gone():
    deps = {Path(name) for name in stage()["deps"]}
    code = import_closure("components.commands.analyze")
    assert [path for path in code if not deps & {path, *path.parents}] == []
    assert [path for path in deps if path.parts[0] in ("components", "pretrained") and not (ROOT / path).exists()] == []


def test_what_it_reads_is_what_the_main_graph_writes(tmp_path):
    main = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    made = {name for one in main.values() for name in one["outs"]}
    made = {name.replace("${item.codec}", "elic").replace("${item.mllm}", "micro-llava") for name in made}
    read = {name for name in stage()["deps"] if name.startswith(("data/", "results/"))}
    for name in read:  # an output, or a folder of some
        assert any(f"{one}/".startswith(f"{name}/") for one in made), name
    assert not set(stage()["outs"]) & made


def test_prefect_runs_it_by_name():
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    (found,) = (one for one in deployments if one["name"] == "analysis")
    assert found["parameters"] == {"stage": STAGE}
    assert found["entrypoint"] == "flows/run_stage.py:run_stage"
    assert stage_command(STAGE, remote=False, pool="cpu")[-2:] == ["--single-item", STAGE]


def test_dvc_knows_the_stage_and_the_main_graph_is_as_it_was():
    from dvc.repo import Repo

    from flows.dvc_graph import read_graph

    with Repo(str(ROOT)) as repo:
        (found,) = repo.stage.collect(str(ROOT / STAGE))
        upstream = {one.name for one in repo.index.graph.successors(found)}
    assert {"benchmarks", "rate@elic", "evaluate@elic-micro-llava"} <= upstream
    assert all(one.name != "analyze" for one in read_graph(ROOT))


def test_a_stage_of_another_file_is_run_once_and_its_failure_is_told(tmp_path):
    """What the deployment does, on a stage of the same name in a checkout that holds nothing else."""
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], cwd=tmp_path, check=True)
    (tmp_path / "pipelines/analysis").mkdir(parents=True)
    file, text = (
        tmp_path / "pipelines/analysis/dvc.yaml",
        "stages:\n  analyze:\n    wdir: ../..\n    cmd: {}\n    outs: [made]\n",
    )
    file.write_text(text.format("touch made"))
    said = []
    assert reproduce(tmp_path, STAGE, {}, said.append)
    assert (tmp_path / "made").is_file()
    assert not reproduce(tmp_path, STAGE, {}, said.append)
    file.write_text(text.format("ls nowhere"))
    with pytest.raises(StageFailed, match="nowhere"):
        reproduce(tmp_path, STAGE, {}, said.append)
