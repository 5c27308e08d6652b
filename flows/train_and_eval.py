"""The main job: the whole graph, as one experiment in MLflow, ending with registered models.

    prefect deployment run train-and-eval/local --watch
    prefect deployment run train-and-eval/local --watch --param 'overrides={"adapter.lambda_high": "0.5"}'

Without arguments it runs in the checkout, edits included, as `dvc repro` would. With overrides or another profile it
runs in a copy (`flows/workspace.py`), and the results come back under `results/runs/<name>`.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect import flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run

from components.errors import CotamError
from components.files import write_json
from components.locks import die_with_parent
from components.paths import ROOT, Paths
from components.tracking.registry import candidates, register
from flows import workspace
from flows.pipeline import Job, run_pipeline
from flows.records import end_parent, open_parents, start_parent
from flows.run_stage import restore, to_log


@flow(name="train-and-eval")
def train_and_eval(
    profile: str | None = None,
    overrides: dict[str, Any] | None = None,
    name: str | None = None,
    retries: int = 0,
    project: str | None = None,
    remote: bool = False,
) -> None:
    """Run every stage that is not up to date, record all of them, and register what came out.

    Args:
        profile: `profiles/<profile>.yaml`, whose values replace those of params.yaml.
        overrides: dotted keys of params.yaml and their values.
        name: of the run in MLflow and of the results' folder; made from the changes if not given.
        retries: how often a stage that failed is tried again. On one machine mostly for runs that nobody watches: it
            would most likely fail in the same way.
        project: the checkout to run; the one that this code is in by default.
        remote: stages run on other machines, which share the DVC remote and have this revision checked out.

    Raises:
        CotamError: a setting or the name is wrong, other machines would not know what is to run, or MLflow does not
            answer.
        PipelineFailed: a stage failed.
        StageFailed: what other machines made could not be fetched.
    """
    if "PREFECT__FLOW_RUN_ID" in os.environ:
        die_with_parent()
    checkout, overrides = Path(project or ROOT).resolve(), overrides or {}
    name = workspace.check_name(name or workspace.run_name(profile, overrides) or "default")
    if remote and (profile or overrides):
        raise CotamError("Other machines do not see overrides: commit the changed params.yaml and run that.")
    if remote:
        workspace.refuse_edits(checkout)
    folder = workspace.open_changed(checkout, name, profile, overrides)
    run_experiment(folder, name, {"profile": profile or "", "overrides": overrides}, retries, remote)
    if folder != checkout:
        results = workspace.copy_back(folder, checkout, name)
        get_run_logger().info("The results of %s are in %s.", name, results)


def run_experiment(folder: Path, name: str, changes: dict[str, object], retries: int, remote: bool) -> None:
    """Drive the graph of `folder` as one parent run in MLflow.

    Raises:
        CotamError: MLflow does not answer.
        PipelineFailed: a stage failed.
        StageFailed: what other machines made could not be fetched.
    """
    source, begun = workspace.source_of(folder), time.time()
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    tags = {"mlflow.source.git.commit": source.revision, "dirty": str(source.dirty).lower(), **changes}
    tags["prefect_flow_run"] = flow_run.id
    with mlflow_answers(uri):
        end_abandoned(uri)
        run_id = start_parent(uri, name, folder, tags)
    patch = folder / ".cotam" / "run" / f"{run_id}.patch"
    patch.parent.mkdir(parents=True, exist_ok=True)
    patch.write_bytes(source.patch)
    report, status, files = Paths(folder).report, "FAILED", [patch] if source.dirty else []
    try:
        run_pipeline(Job(folder, {"MLFLOW_TRACKING_URI": uri, "COTAM_PARENT_RUN": run_id}, remote), retries)
        if remote:
            restore(folder, [], to_log())
        status = "FINISHED"
        if (report / "summary.json").exists():
            files += [report / "summary.json", report / "index.html", report / "run.json"]
            about = {"mlflow_run": run_id, "revision": source.revision, "dirty": source.dirty}
            write_json(report / "run.json", {**about, "begun": begun, "seconds": round(time.time() - begun, 1)})
            register_models(folder, uri, run_id, source.revision)
    finally:
        end_parent(uri, run_id, status, files)
        patch.unlink()


@contextlib.contextmanager
def mlflow_answers(uri: str) -> Iterator[None]:
    """Raises CotamError: MLflow does not answer what is asked inside."""
    try:
        yield
    except httpx.HTTPError as error:
        raise CotamError(f"MLflow at {uri or 'MLFLOW_TRACKING_URI'} does not answer: run `make up` first.") from error


def end_abandoned(uri: str) -> None:
    """End the experiments that MLflow believes to be under way and whose flow has ended.

    Raises:
        httpx.HTTPError: MLflow cannot be reached.
    """
    for abandoned in open_parents(uri):
        if has_ended(abandoned["prefect_flow_run"]):
            end_parent(uri, abandoned["run_id"], "KILLED")


def has_ended(flow_run_id: str) -> bool:
    """Whether a run of this flow has ended, by itself or because its worker was killed."""
    with get_client(sync_client=True) as client:
        try:
            return client.read_flow_run(UUID(flow_run_id)).state.is_final()
        except ObjectNotFound:  # of a server that was wiped
            return True


def register_models(folder: Path, uri: str, run_id: str, revision: str) -> None:
    """Put the codecs and adapters of a finished run into the registry, and say so."""
    for found in candidates(folder, revision):
        done = register(found, uri, run_id)
        what = "registered" if done.new else "was there already"
        title = "champion" if done.champion else "not champion"
        get_run_logger().info("%s version %s %s; %s: %s.", done.name, done.version, what, title, done.reason)
