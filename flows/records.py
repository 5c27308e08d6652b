"""What the driver tells MLflow: one parent run per experiment, one child run per stage.

A stage that ran has logged live into its child run (`components/tracking/stage_run.py`). One that DVC restored or left
alone is logged here from its metric files and tagged `cached_from`, so that no run is empty.
"""

import hashlib
import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml

from components.tracking.client import TrackingClient, metric_point, tags
from components.tracking.registry import EXPERIMENT
from components.tracking.stage_run import flatten

logger = logging.getLogger(__name__)


def start_parent(uri: str, name: str, project: Path, extra_tags: Mapping[str, Any]) -> str:
    """Start the run of an experiment, with every setting as a parameter, and return its id.

    Raises:
        httpx.HTTPError: MLflow cannot be reached.
    """
    client = TrackingClient(uri)
    run_id = client.create_run(client.experiment(EXPERIMENT), name, {"kind": "experiment", **extra_tags})
    settings = project / "params.yaml"
    if settings.exists():
        client.log_batch(run_id, params=flatten(yaml.safe_load(settings.read_text()) or {}))
    return run_id


def open_parents(uri: str) -> list[dict[str, str]]:
    """`run_id` and `prefect_flow_run` of the experiments that MLflow believes to be under way.

    Raises:
        httpx.HTTPError: MLflow cannot be reached.
    """
    client = TrackingClient(uri)
    where = "attributes.status = 'RUNNING' and tags.kind = 'experiment'"
    runs = client.search_runs([client.experiment(EXPERIMENT)], where)
    return [
        {"run_id": run["info"]["run_id"], "prefect_flow_run": tags(run)["prefect_flow_run"]}
        for run in runs
        if tags(run).get("prefect_flow_run")
    ]


def end_parent(uri: str, run_id: str, status: str, files: Iterable[Path] = ()) -> None:
    """Attach `files` (and log what `summary.json` among them says), and end the run and any child left open."""
    client = TrackingClient(uri)
    parent = client.get_run(run_id)
    for path in files:
        if path.name == "summary.json":
            client.log_batch(run_id, metrics=list(summary_points(json.loads(path.read_text()))))
        if path.exists():
            client.log_artifact(parent, path)
    for child in client.children(parent).values():
        if child["info"]["status"] == "RUNNING":
            client.end_run(child["info"]["run_id"], "KILLED")
    client.end_run(run_id, status)


def record_stage(project: Path, stage: str, tracking: Mapping[str, str], ran: bool, status: str = "FINISHED") -> None:
    """Complete the child run of a stage from the files that it left.

    Args:
        project: the checkout that holds them.
        stage: as DVC names it.
        tracking: MLFLOW_TRACKING_URI and COTAM_PARENT_RUN; nothing is recorded without them.
        ran: False when DVC found the results in its cache or in place.
        status: FINISHED or FAILED.

    A server that cannot be reached costs a warning.
    """
    uri, parent_id = tracking.get("MLFLOW_TRACKING_URI"), tracking.get("COTAM_PARENT_RUN")
    if not uri or not parent_id:
        return
    try:
        _record(TrackingClient(uri), parent_id, project, stage, ran, status)
    except httpx.HTTPError as error:
        logger.warning("MLflow at %s did not take the record of stage %s: %s", uri, stage, error)


def _record(client: TrackingClient, parent_id: str, project: Path, stage: str, ran: bool, status: str) -> None:
    parent = client.get_run(parent_id)
    experiment = parent["info"]["experiment_id"]
    entry = _lock_entry(project, stage) if status == "FINISHED" else {}
    stage = stage.rpartition(":")[2]  # as the step itself has called its run
    content = hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()[:16]
    labels = {"lock_hash": content} if entry else {}
    child = client.children(parent).get(stage)
    if child:
        run_id = child["info"]["run_id"]
    else:
        run_id = client.create_run(experiment, stage, {"mlflow.parentRunId": parent_id, "stage": stage})
        settings = {name: value for values in entry.get("params", {}).values() for name, value in values.items()}
        client.log_batch(run_id, params=flatten(settings))
    if entry and not ran:
        known = client.search_runs([experiment], f"tags.lock_hash = '{content}' and tags.ran = 'true'", limit=1)
        labels["cached_from"] = known[0]["info"]["run_id"] if known else "dvc cache"
    labels["ran"] = str(ran).lower()
    points = [metric_point(key, value) for key, value in _file_metrics(project, entry)]
    client.log_batch(run_id, metrics=points, tags=labels)
    # A step that ended well has said when; what DVC does afterwards is not its work (stage_times.py).
    said = child["info"].get("end_time") if child and child["info"]["status"] == "FINISHED" else None
    client.end_run(run_id, status, int(said) if said else None)


def _lock_entry(project: Path, stage: str) -> dict[str, Any]:
    pipeline, _, stage = stage.rpartition(":")
    lock = (project / pipeline).with_name("dvc.lock") if pipeline else project / "dvc.lock"
    stages = (yaml.safe_load(lock.read_text()) or {}).get("stages", {}) if lock.exists() else {}
    return stages.get(stage, {})


def _file_metrics(project: Path, entry: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers in the stage's small JSON results; lists (samples, curves) stay in the files."""
    for out in entry.get("outs", []):
        path = project / out["path"]
        if path.suffix != ".json" or not path.is_file() or path.stat().st_size > 1_000_000:
            continue
        content = json.loads(path.read_text())
        if isinstance(content, dict):
            for key, value in flatten(content).items():
                if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                    yield metric_name(key), value


def metric_name(name: str) -> str:
    """`name` with everything that MLflow does not allow in a metric replaced by an underscore."""
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name)[:250]


def summary_points(summary: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The report's summary as metrics of the experiment.

    `bd_rate/<codec>.<method>.<mllm>/<benchmark>` in per cent, and `score/<codec>.<method>.<mllm>/<benchmark>` with
    1000 * bits per pixel as its step: MLflow plots over steps, and its compare view overlays the curves of runs. Videos
    are the benchmark `videomme`, with a rate of their own; lmms-eval's tasks are `lmms-eval.mme` and so on.
    """
    for codec, methods in summary.get("codecs", {}).items():
        for method, mllms in methods.items():
            for mllm, found in mllms.items():
                for part in (found, found.get("clips") or {}):
                    yield from _points(f"{codec}.{method}.{mllm}", part)
                for task in (found.get("tasks") or {}).values():
                    yield from _points(f"{codec}.{method}.{mllm}", task, "lmms-eval.")


def _points(name: str, found: Mapping[str, Any], of: str = "") -> Iterator[dict[str, Any]]:
    for benchmark, rate in (found.get("bd_rate") or {}).items():
        if rate and rate.get("value") is not None:
            yield metric_point(metric_name(f"bd_rate/{name}/{of}{benchmark}"), rate["value"])
    for point in found.get("curve") or []:
        step = None if point["bpp"] is None else round(1000 * point["bpp"])  # clean images have no rate
        for benchmark, score in point["scores"].items():
            if score is not None:
                yield metric_point(metric_name(f"score/{name}/{of}{benchmark}"), score, step)
