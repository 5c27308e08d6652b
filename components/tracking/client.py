"""The few calls of MLflow's REST API that a stage and its driver need.

Importing `mlflow` costs four to five seconds of a core; a pipeline of nine short stages would pay that nine times.
Logging needs eight small requests, so they are made here with httpx (`requests`, with what it imports, costs another
second or two), and with short timeouts: tracking is a witness and must never hold up training. The model registry,
which runs once per experiment, uses the mlflow package (`registry.py`).
"""

import math
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import httpx

METRICS_PER_CALL = 1000  # MLflow's own limit for log-batch
PARAMS_PER_CALL = 100
VALUE_LIMIT = 5000  # characters in a tag; a parameter may have 6000


def now_ms() -> int:
    """Milliseconds since the epoch, the unit of all of MLflow's times."""
    return int(time.time() * 1000)


def metric_point(key: str, value: float, step: int | None = None, timestamp_ms: int | None = None) -> dict[str, Any]:
    """One metric as `log_batch` takes it. What JSON has no number for is sent as protobuf spells it."""
    value = float(value)
    odd = {True: "NaN", False: "Infinity" if value > 0 else "-Infinity"}
    return {
        "key": key,
        "value": value if math.isfinite(value) else odd[math.isnan(value)],
        "step": int(step or 0),
        "timestamp": timestamp_ms or now_ms(),
    }


class TrackingClient:
    """A connection to one MLflow server.

    Every method raises `httpx.HTTPError` when the server cannot be reached or refuses.
    """

    def __init__(self, uri: str, timeout_s: float = 10.0):
        self.uri = uri.rstrip("/")
        user, password = (os.environ.get(f"MLFLOW_TRACKING_{part}") for part in ("USERNAME", "PASSWORD"))
        auth = (user, password) if user and password else None  # as the mlflow package does
        self._session = httpx.Client(timeout=httpx.Timeout(timeout_s, connect=3.0), auth=auth)

    def _call(self, method: str, path: str, **kwargs: Any) -> dict[str, Any]:
        reply = self._session.request(method, f"{self.uri}/api/2.0/{path}", **kwargs)
        if reply.is_error:
            said = f"{path} answered {reply.status_code}: {reply.text[:300]}"
            raise httpx.HTTPStatusError(said, request=reply.request, response=reply)
        return reply.json() if reply.content.startswith(b"{") else {}

    def experiment(self, name: str) -> str:
        """The id of the experiment of that name, made if there is none."""
        try:
            return self._call("POST", "mlflow/experiments/create", json={"name": name})["experiment_id"]
        except httpx.HTTPStatusError as error:
            if "RESOURCE_ALREADY_EXISTS" not in str(error):
                raise
            found = self._call("GET", "mlflow/experiments/get-by-name", params={"experiment_name": name})
            return found["experiment"]["experiment_id"]

    def create_run(self, experiment_id: str, name: str, tags: Mapping[str, Any]) -> str:
        """Start a run and return its id."""
        body = {"experiment_id": experiment_id, "run_name": name, "start_time": now_ms(), "tags": _pairs(tags)}
        return self._call("POST", "mlflow/runs/create", json=body)["run"]["info"]["run_id"]

    def get_run(self, run_id: str) -> dict[str, Any]:
        """The run as MLflow's JSON: `info` (status, artifact_uri, ...) and `data` (metrics, params, tags)."""
        return self._call("GET", "mlflow/runs/get", params={"run_id": run_id})["run"]

    def end_run(self, run_id: str, status: str, ended_ms: int | None = None) -> None:
        """Set the final status: FINISHED, FAILED or KILLED, and when it ended (now). RUNNING reopens the run."""
        body: dict[str, Any] = {"run_id": run_id, "status": status}
        if status != "RUNNING":
            body["end_time"] = now_ms() if ended_ms is None else ended_ms
        self._call("POST", "mlflow/runs/update", json=body)

    def log_batch(self, run_id: str, metrics: list[dict[str, Any]] | None = None,
                  params: Mapping[str, Any] | None = None, tags: Mapping[str, Any] | None = None) -> None:
        """Send metrics (see `metric_point`), params and tags, in as few requests as MLflow's limits allow."""
        metrics, pairs, tag_pairs = list(metrics or []), _pairs(params or {}), _pairs(tags or {})
        while metrics or pairs or tag_pairs:
            body = {
                "run_id": run_id,
                "metrics": metrics[: METRICS_PER_CALL - 2 * PARAMS_PER_CALL],
                "params": pairs[:PARAMS_PER_CALL],
                "tags": tag_pairs[:PARAMS_PER_CALL],
            }
            self._call("POST", "mlflow/runs/log-batch", json=body)
            metrics = metrics[METRICS_PER_CALL - 2 * PARAMS_PER_CALL :]
            pairs, tag_pairs = pairs[PARAMS_PER_CALL:], tag_pairs[PARAMS_PER_CALL:]

    def search_runs(self, experiment_ids: Iterable[str], where: str, limit: int = 100) -> list[dict[str, Any]]:
        """Runs that match MLflow's filter, newest first, as `get_run` gives them."""
        body = {
            "experiment_ids": list(experiment_ids),
            "filter": where,
            "max_results": limit,
            "order_by": ["attributes.start_time DESC"],
        }
        return self._call("POST", "mlflow/runs/search", json=body).get("runs", [])

    def children(self, parent: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The stage runs below a parent run, by stage name."""
        runs = self.search_runs(
            [parent["info"]["experiment_id"]], f"tags.`mlflow.parentRunId` = '{parent['info']['run_id']}'"
        )
        return {tags(run)["stage"]: run for run in reversed(runs) if "stage" in tags(run)}

    def log_artifact(self, run: dict[str, Any], path: Path, name: str | None = None) -> None:
        """Upload one file into the run's artifacts under `name` (its own name by default)."""
        root = run["info"]["artifact_uri"]
        if not root.startswith("mlflow-artifacts:/"):
            # The server hands artifacts to a store of its own (S3, say): only the mlflow package can write there.
            from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

            get_artifact_repository(root).log_artifact(str(path), str(Path(name).parent) if name else None)
            return
        folder = root.removeprefix("mlflow-artifacts:").strip("/")
        with Path(path).open("rb") as stream:
            self._call("PUT", f"mlflow-artifacts/artifacts/{folder}/{name or Path(path).name}", content=stream)


def tags(run: dict[str, Any]) -> dict[str, str]:
    """The tags of a run, as a dictionary."""
    return {tag["key"]: tag["value"] for tag in run["data"].get("tags", [])}


def _pairs(values: Mapping[str, Any]) -> list[dict[str, str]]:
    return [{"key": key, "value": str(value)[:VALUE_LIMIT]} for key, value in values.items()]
