"""Reading the graph while another DVC writes beside us."""

import threading

import pytest
from dvc.exceptions import DvcException
from dvc.repo import Repo

from flows import dvc_graph

GRAPH = "stages:\n  one: {cmd: 'true', outs: [a]}\n  two: {cmd: 'true', deps: [a]}\n"
LOCK = "schema: '2.0'\nstages:\n  one:\n    cmd: 'true'\n"
HALF = LOCK[: LOCK.index("cmd")]


@pytest.fixture
def project(tmp_path):
    Repo.init(str(tmp_path), no_scm=True).close()
    (tmp_path / "dvc.yaml").write_text(GRAPH)
    (tmp_path / "dvc.lock").write_text(HALF)
    return tmp_path


def test_a_half_written_lock_is_read_again(project):
    writer = threading.Timer(1.0, (project / "dvc.lock").write_text, [LOCK])
    writer.start()
    found = dvc_graph.read_graph(project)
    writer.join()
    assert [(stage.name, stage.upstream) for stage in found] == [("one", frozenset()), ("two", frozenset({"one"}))]


def test_a_broken_lock_is_an_error_in_the_end(project, monkeypatch):
    monkeypatch.setattr(dvc_graph, "HALF_WRITTEN_SECONDS", 0.3)
    with pytest.raises(DvcException):
        dvc_graph.read_graph(project)
