"""Prefect's API server, on SQLite made to hold under load.

Prefect begins most writing transactions DEFERRED: two of them that both read and then both want to write cannot wait
for each other, and SQLite fails one at once with "database is locked", whatever the timeout. Begun IMMEDIATE, the
second waits its turn. `python -m flows.prefect_server --port 4200` is `prefect server start` with that difference.
"""

import argparse

import uvicorn
from prefect.server.api.server import create_app
from prefect.server.database.configurations import SQLITE_BEGIN_MODE, AioSqliteConfiguration
from sqlalchemy import Connection


def begin_immediately(_: AioSqliteConfiguration, connection: Connection) -> None:
    """Prefect's listener for SQLAlchemy's `begin` event, taking the write lock at once."""
    if SQLITE_BEGIN_MODE.get() is not None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.prefect_server", description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    args = parser.parse_args()
    AioSqliteConfiguration.begin_sqlite_stmt = begin_immediately
    uvicorn.run(create_app(final=True), host=args.host, port=args.port, log_level="warning", timeout_keep_alive=30)


if __name__ == "__main__":
    main()
