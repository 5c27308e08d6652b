"""How a pipeline stage tells MLflow what it is doing while it does it.

A stage writes `with stage_run("joint@elic-micro-llava", params) as log: log.metric("loss", value, step)`. When a driver
started it (MLFLOW_TRACKING_URI and COTAM_PARENT_RUN are set) that becomes a child run of the experiment; under plain
`dvc repro` it does nothing. A server that is dead or dies costs one warning, never the training.
"""

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from components.tracking.client import TrackingClient

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 2.0
RETRY_SECONDS = 30.0
BUFFER_LIMIT = 20_000  # points kept for a server that is away


class StageLog:
    """The handle a stage logs to; with no client it accepts everything and sends nothing."""

    def __init__(self, client: "TrackingClient | None" = None, run: dict[str, Any] | None = None):
        self._client = client
        self._run = run
        self._buffer: list[dict[str, Any]] = []
        self._next_flush = time.monotonic() + FLUSH_SECONDS
        self._warned = False

    @property
    def run_id(self) -> str | None:
        """The MLflow run of this stage, or None when nothing is logged."""
        return self._run["info"]["run_id"] if self._run else None

    def metric(self, name: str, value: float, step: int | None = None) -> None:
        """Log one number; `step` is what MLflow plots over: a training step, or 1000 * bits per pixel."""
        if self._client is None:
            return
        from components.tracking.client import metric_point

        self._buffer = self._buffer[-BUFFER_LIMIT:]
        self._buffer.append(metric_point(name, value, step))
        if time.monotonic() >= self._next_flush:
            self.flush()

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Log several numbers at one step."""
        for name, value in values.items():
            self.metric(name, value, step)

    def artifact(self, path: Path | str) -> None:
        """Upload one file, under its own name."""
        self._send(lambda client: client.log_artifact(self._run, Path(path)))

    def flush(self) -> None:
        """Send what has gathered."""
        points = self._buffer
        if points and self._send(lambda client: client.log_batch(self.run_id, metrics=points)):
            self._buffer = []

    def close(self, status: str) -> None:
        """Send the rest and end the run as FINISHED, FAILED or KILLED."""
        self.flush()
        self._send(lambda client: client.end_run(self.run_id, status))

    def _send(self, call: Any) -> bool:
        if self._client is None:
            return False
        try:
            call(self._client)
        except Exception as error:  # whatever tracking does, training goes on
            self._next_flush = time.monotonic() + RETRY_SECONDS
            if not self._warned:
                logger.warning("MLflow at %s is not taking metrics, training goes on: %s", self._client.uri, error)
                self._warned = True
            return False
        self._next_flush = time.monotonic() + FLUSH_SECONDS
        return True


@contextmanager
def stage_run(stage_name: str, params: Mapping[str, Any] | None = None) -> Iterator[StageLog]:
    """Log what happens inside as the child run `stage_name` of the current experiment.

    A stage that was interrupted and resumes in the same experiment continues its run.

    Args:
        stage_name: the stage as DVC names it, for example `joint@elic-micro-llava`.
        params: the values that the stage was given; nested dictionaries become dotted keys.
    """
    log = _open(stage_name, params or {})
    status = "FAILED"
    try:
        yield log
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        log.close(status)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one level of dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _open(stage_name: str, params: Mapping[str, Any]) -> StageLog:
    uri, parent_id = os.environ.get("MLFLOW_TRACKING_URI", ""), os.environ.get("COTAM_PARENT_RUN")
    if not parent_id or not uri.startswith("http"):
        return StageLog()
    from components.tracking.client import TrackingClient

    client = TrackingClient(uri)
    try:
        parent = client.get_run(parent_id)
        earlier = client.children(parent).get(stage_name)
        if earlier:
            client.end_run(earlier["info"]["run_id"], "RUNNING")
            return StageLog(client, earlier)
        tags = {"mlflow.parentRunId": parent_id, "stage": stage_name}
        run_id = client.create_run(parent["info"]["experiment_id"], stage_name, tags)
        client.log_batch(run_id, params=flatten(params))
        return StageLog(client, client.get_run(run_id))
    except Exception as error:  # whatever tracking does, training goes on
        logger.warning("MLflow at %s cannot be reached, this stage logs to its files only: %s", uri, error)
        return StageLog()
