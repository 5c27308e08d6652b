"""From a registered version back to what it was made of: the run, the revision, the settings, the data."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from components.errors import CotamError
from components.tracking.models import find

DATA = "data/"  # of the results in dvc.lock: what models are made from and measured on
TAG = "data"


def data_of(root: Path) -> dict[str, str]:
    """Path -> DVC's MD5 of the data below `root` (shards, scenes, benchmarks, weights), from dvc.lock; {} without."""
    lock = root / "dvc.lock"
    stages = (yaml.safe_load(lock.read_text()) or {}).get("stages", {}) if lock.exists() else {}
    outs = [out for stage in stages.values() for out in stage.get("outs", [])]
    return {out["path"]: out["md5"] for out in outs if out["path"].startswith(DATA) and "md5" in out}


def benchmark_version(data: Mapping[str, str], qualities: object) -> str:
    """Sixteen hex digits that change when the benchmarks do, or the qualities that BD-rates are fitted over.

    Args:
        data: of `data_of`.
        qualities: the settings `evaluation.qualities` and those of the yardsticks, anything that JSON can hold.
    """
    content = json.dumps([data.get("data/benchmarks"), qualities], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def trace(uri: str, server: str) -> dict[str, Any]:
    """Everything that MLflow knows of how a version was made.

    Args:
        uri: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        server: the address of MLflow.

    Returns:
        `model`, `version`, `aliases`, `content_hash`, `bd_rate` (per cent or None), `promotion`, `revision`, `dirty`,
        `run` (`id`, `name`, `status`, `begun` in ms since 1970, `flow_run`), `settings` (of the run, dotted) and `data`
        (path -> MD5).

    Raises:
        CotamError: there is no such version, or MLflow does not answer.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(server)
    version = find(client, uri, server)
    try:
        run = client.get_run(version.run_id) if version.run_id else None
    except MlflowException as error:
        raise CotamError(f"MLflow at {server} has lost the run {version.run_id} that made {uri}.") from error
    tags, of_run = version.tags, run.data.tags if run else {}
    return {
        "model": version.name,
        "version": str(version.version),
        "aliases": sorted(version.aliases),
        "content_hash": tags.get("content_hash"),
        "bd_rate": float(tags["bd_rate"]) if tags.get("bd_rate") else None,
        "promotion": tags.get("promotion"),
        "codec_hash": tags.get("codec_hash"),
        "revision": tags.get("revision") or of_run.get("mlflow.source.git.commit"),
        "dirty": of_run.get("dirty") == "true",
        "run": {
            "id": version.run_id,
            "name": run.info.run_name,
            "status": run.info.status,
            "begun": run.info.start_time,
            "flow_run": of_run.get("prefect_flow_run"),
        }
        if run
        else None,
        "settings": dict(sorted(run.data.params.items())) if run else {},
        "data": json.loads(tags.get(TAG, "{}")),
    }
