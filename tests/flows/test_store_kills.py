"""SIGKILL of the database and of the store in the middle of a run: the same command again, the same results."""

import pytest

from flows import services
from flows.service_options import Options
from tests.flows.conftest import free_port
from tests.flows.test_kills import (
    KILL,
    check,
    finish,
    kill_at_a_random_moment,
    kill_service,
    kill_while_joint_runs,
    setting,  # noqa: F401 - a fixture
)
from tests.pipeline_project import ledger


@pytest.fixture
def on_stores(running, monkeypatch):
    """The project, its services started anew on PostgreSQL and S3; afterwards as they were."""
    for variable in ("COTAM_POSTGRES_PORT", "COTAM_S3_PORT"):
        monkeypatch.setenv(variable, str(free_port()))
    services.down(running)
    services.up(running, options=Options(postgres=True, s3=True))
    yield running
    services.down(running)
    services.up(running)


@pytest.mark.soak
def test_the_database_and_the_store_are_killed(on_stores, setting, tmp_path, monkeypatch, injected):  # noqa: F811
    setting(0.125)
    ledger(on_stores)
    for name in ("postgres", "s3"):
        monkeypatch.setitem(KILL, name, kill_service(name))
        done = kill_while_joint_runs(on_stores, name, injected)
        assert done.code == 1
        assert f"The service {name} has ended" in done.err and len(done.err.splitlines()) == 1
        assert services.status(on_stores)[name]["state"] in ("dead", "stopped")
    finish(on_stores)
    assert ledger(on_stores) == ["joint", "report"]
    assert {one["state"] for one in services.status(on_stores).values()} == {"running"}
    check(on_stores, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize(("seed", "kind"), [(10, "postgres"), (11, "s3")])
def test_either_is_killed_at_a_random_moment(on_stores, setting, tmp_path, injected, seed, kind):  # noqa: F811
    setting(100 + seed)
    kill_at_a_random_moment(on_stores, seed, kind, injected)
    assert {one["state"] for one in services.status(on_stores).values()} == {"running"}
    check(on_stores, tmp_path)
