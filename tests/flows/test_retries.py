"""Stages that failed are tried again as often as the flow was told; what was cancelled, or crashes, is not."""

import pytest
from prefect import flow
from prefect.settings import temporary_settings
from prefect.states import Cancelled, Completed, Crashed, Failed

from flows import pipeline, services
from flows.dvc_graph import Stage
from flows.pipeline import Job, PipelineFailed, check, run_stages
from tests.flows.conftest import of_server


@pytest.mark.parametrize(
    ("states", "retries", "asked"),
    [
        ([Failed(message="a cut connection"), Completed()], 2, 2),
        ([Failed(message="no")] * 3, 2, 3),
        ([Failed(message="no")], 0, 1),
        ([Cancelled(message="by somebody")], 2, 1),
        ([Crashed(message="for the fourth time")], 2, 1),
    ],
)
def test_what_is_tried_again(running, tmp_path, monkeypatch, states, retries, asked):
    services.up(running)
    left = list(states)
    monkeypatch.setattr(pipeline, "run_elsewhere", lambda *_: left.pop(0))
    monkeypatch.setattr(pipeline, "RETRY_SECONDS", 0.01)
    stage = Stage("one", "cpu", frozenset())

    @flow
    def some():
        check(run_stages([stage], lambda _: Job(tmp_path, remote=True), retries))

    with temporary_settings(of_server(running)):
        if states[-1].is_completed():
            some()
        else:
            with pytest.raises(PipelineFailed, match=states[-1].message):
                some()
    assert len(states) - len(left) == asked
