"""Shards from a folder of images, as a deployment: `prefect deployment run shard-dataset/local --watch --param ...`."""

import os
import sys
from pathlib import Path

from prefect import flow, get_run_logger

from components.errors import CotamError
from components.locks import die_with_parent
from components.paths import ROOT
from flows.run_stage import StageFailed, run_lines, stage_environment


@flow(name="shard-dataset", flow_run_name="shard {source}")
def shard_dataset(source: str, out: str) -> None:
    """Do what `cotam shard SOURCE -o OUT` does, on the worker.

    Args:
        source: a folder of images, or s3://bucket/prefix.
        out: the folder that the shards and their manifest are written to.
    """
    if "PREFECT__FLOW_RUN_ID" in os.environ:
        die_with_parent()
    command = [sys.executable, "-m", "components.cli", "shard", source, "-o", str(Path(out).expanduser().resolve())]
    say, lines = get_run_logger().info, []
    try:
        for line in run_lines(command, ROOT, stage_environment(ROOT, {})):
            lines.append(line)
            say(line)
    except StageFailed as error:
        raise CotamError(lines[-1] if lines else f"cotam shard: {error}") from error
