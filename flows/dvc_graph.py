"""The experiment graph, as DVC has it: read here, written only in dvc.yaml."""

import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dvc.stage import PipelineStage

_one_at_a_time = threading.Lock()  # DVC's repository object is made for one thread
HALF_WRITTEN_SECONDS = 3.0  # far longer than DVC takes to write dvc.lock


@dataclass(frozen=True)
class Stage:
    """A stage of the main dvc.yaml, or of another pipeline of the project.

    Attributes:
        name: as `dvc repro` takes it, for example `joint@elic-micro-llava`; in another pipeline with its file in front.
        pool: the work pool that it is run in (`meta: {pool: ...}`, `cpu` if it says nothing).
        upstream: names of the stages that it waits for, directly or through others.
    """

    name: str
    pool: str
    upstream: frozenset[str]


MAIN = "dvc.yaml"


def target(stage: "PipelineStage") -> str:
    """What `Stage.name` says, of DVC's own object."""
    return stage.name if stage.path_in_repo == MAIN else f"{stage.path_in_repo}:{stage.name}"


def path_of(project: Path, stage: str) -> str:
    """A stage as DVC finds it from anywhere: a bare name would be looked up in the folder that we stand in."""
    return f"{project}/{stage if ':' in stage else f'{MAIN}:{stage}'}"


def pipeline_of(stage: str) -> str:
    """The file that a stage (as `Stage.name` says it) is in."""
    return stage.rpartition(":")[0] or MAIN


def read_graph(project: Path, pipelines: Collection[str] = (MAIN,)) -> list[Stage]:
    """The stages of these files of `project`, each after all that it waits for.

    A DVC at work here, of another run for example, writes dvc.lock in place: one that is half-written is read again.
    """
    from dvc.exceptions import DvcException

    deadline = time.monotonic() + HALF_WRITTEN_SECONDS
    while True:
        try:
            return _read_graph(project, pipelines)
        except DvcException:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)


def _read_graph(project: Path, pipelines: Collection[str]) -> list[Stage]:
    import networkx
    from dvc.repo import Repo
    from dvc.stage import PipelineStage

    with _one_at_a_time, Repo(str(project)) as repo:
        graph = repo.index.graph  # an edge points from a stage to what it needs

        def is_ours(stage: object) -> bool:
            return isinstance(stage, PipelineStage) and stage.path_in_repo in pipelines

        return [
            Stage(
                name=target(stage),
                pool=(stage.meta or {}).get("pool", "cpu"),
                upstream=frozenset(target(other) for other in networkx.descendants(graph, stage) if is_ours(other)),
            )
            for stage in reversed(list(networkx.lexicographical_topological_sort(graph, key=lambda s: s.addressing)))
            if is_ours(stage)
        ]


def unchanged(project: Path, stage: str) -> bool:
    """Whether the stage's results are in place and are those of its present inputs.

    False as well when DVC cannot tell just now, because another of its processes holds the lock: `dvc repro` finds out.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    with _one_at_a_time:
        try:
            with Repo(str(project)) as repo:
                return not repo.status(targets=[path_of(project, stage)])
        except DvcException:
            return False
