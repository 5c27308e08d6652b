"""`cotam services`: start and stop Prefect, MLflow and a worker, with PostgreSQL and an S3 store if asked."""

import argparse


def add_parser(sub: argparse._SubParsersAction) -> None:
    """Describe the command."""
    from flows.services import add_arguments

    parser = sub.add_parser(
        "services",
        help="start and stop Prefect, MLflow and a worker; with PostgreSQL and an S3 store if asked",
        description="Start, stop or list the services that runs are driven and recorded by. They listen on loopback "
        "only, unless --host is given. `up` heals what has died. docs/cluster.md says how other machines join.",
        epilog="example:\n  cotam services up --postgres --s3\n  cotam services status",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Do it, and print the state of the services."""
    from flows.services import run as run_services

    return run_services(args)
