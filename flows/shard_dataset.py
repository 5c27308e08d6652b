"""Shards from a folder of images, as a deployment: `prefect deployment run shard-dataset/local --watch --param ...`.

In parts it is as many runs of `shard-part/<pool>` as the workers of that pool take at once; the same command after a
failure goes on with the parts that are missing.
"""

import os
import sys
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from components.data.manifest import is_shards
from components.data.parts import part_folder
from components.data.sharding import Share
from components.errors import CotamError
from components.locks import die_with_parent
from components.paths import ROOT
from flows.elsewhere import run_elsewhere
from flows.run_stage import StageFailed, run_lines, stage_environment


@flow(name="shard-dataset", flow_run_name="shard {source}")
def shard_dataset(source: str, out: str, parts: int = 1, remote: bool = False) -> None:
    """Do what `cotam shard SOURCE -o OUT` does, or with several parts what its option --parts does.

    Args:
        source: a folder of images, or s3://bucket/prefix.
        out: the folder that the shards and their manifest are written to.
        parts: how many runs share the work.
        remote: these run on other machines. With several parts, all of them and this one have `source` and the disk of
            `out` under the same names.

    Raises:
        CotamError: what `cotam shard` said, or which parts are missing.
    """
    if "PREFECT__FLOW_RUN_ID" in os.environ:
        die_with_parent()
    if parts < 1:
        raise CotamError(f"parts is {parts}, but must be at least 1.")
    out = str(Path(out).expanduser().resolve())
    if parts == 1 and not remote:
        _shard(source, out)
        return
    pool = "cluster-cpu" if remote else "cpu"
    futures = [ask_for_part.submit(source, out, part, parts, pool) for part in range(1, parts + 1)]
    for future in futures:
        future.wait()
    if failed := [future.state.message for future in futures if not future.state.is_completed()]:
        missing = f"{len(failed)} of {parts} parts are missing; run the same again for those."
        raise CotamError(f"{missing} The first: {failed[0]}")
    if parts > 1:
        _refuse_other_disks(Path(out), parts)
        _shard(source, out, "--parts", str(parts))


@flow(name="shard-part", flow_run_name="part {part} of {parts}, {source}")
def shard_part(source: str, out: str, part: int, parts: int) -> None:
    """Do what `cotam shard SOURCE -o OUT --part PART/PARTS` does.

    Args:
        source, out: as in `shard_dataset`.
        part, parts: which of how many; the only one is OUT itself.

    Raises:
        CotamError: what `cotam shard` said.
    """
    if "PREFECT__FLOW_RUN_ID" in os.environ:
        die_with_parent()
    _shard(source, out, *(("--part", f"{part}/{parts}") if parts > 1 else ()))


@task(task_run_name="part {part} of {parts}", cache_policy=NO_CACHE)
def ask_for_part(source: str, out: str, part: int, parts: int, pool: str) -> None:
    """Have one part made by a worker of `pool`.

    Raises:
        CotamError: it was not.
    """
    parameters = {"source": source, "out": out, "part": part, "parts": parts}
    state = run_elsewhere(f"shard-part/{pool}", parameters, f"part {part} of {parts}")
    if not state.is_completed():
        raise CotamError(f"Part {part} is {state.name.lower()}: {state.message}")


def _refuse_other_disks(out: Path, parts: int) -> None:
    """Parts that were made on other disks would all be made again here, one after the other."""
    for part in range(1, parts + 1):
        if not is_shards(part_folder(out, Share(part, parts))):
            raise CotamError(
                f"Part {part} was made, but is not on this machine's disk: the workers need one disk for {out}."
            )


def _shard(source: str, out: str, *options: str) -> None:
    command = [sys.executable, "-m", "components.cli", "shard", source, "-o", out, *options]
    say, lines = get_run_logger().info, []
    try:
        for line in run_lines(command, ROOT, stage_environment(ROOT, {})):
            lines.append(line)
            say(line)
    except StageFailed as error:
        raise CotamError(lines[-1] if lines else f"cotam shard: {error}") from error
