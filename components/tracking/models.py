"""Registered models as folders: `models:/NAME@ALIAS` and `models:/NAME/VERSION` to a path."""

import os
from pathlib import Path

from components import paths
from components.errors import CotamError
from components.files import atomic_dir, sha256_tree

DEFAULT_SERVER = "http://127.0.0.1:5000"


def download(uri: str) -> Path:
    """Fetch a registered version once, and return the folder that holds it.

    The server is MLFLOW_TRACKING_URI, or that of `make up`. A version never changes, so a copy is kept in
    `.cotam/models/<name>/<version>`; its hash tells it from the same version of another server.

    Raises:
        CotamError: MLflow cannot be reached, has no such version, or holds other files than were registered.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    server = os.environ.setdefault("MLFLOW_TRACKING_URI", DEFAULT_SERVER)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    client = mlflow.MlflowClient(server)
    version = find(client, uri, server)
    try:
        folder = paths.STATE / "models" / version.name / version.version
        content = version.tags.get("content_hash")
        if folder.is_dir() and content in (None, sha256_tree(folder)):
            return folder
        with atomic_dir(folder) as temporary:
            mlflow.artifacts.download_artifacts(
                artifact_uri=f"models:/{version.name}/{version.version}",
                dst_path=str(temporary),
                tracking_uri=server,
            )
            if content not in (None, sha256_tree(temporary)):
                raise CotamError(f"{uri} is not what was registered: its files at {server} have changed.")
    except MlflowException as error:
        raise _not_had(uri, server) from error
    return folder


def find(client, uri: str, server: str):
    """MLflow's record of a version.

    Raises:
        CotamError: `uri` names no version, there is none of that name, or MLflow does not answer.
    """
    from mlflow.exceptions import MlflowException

    try:
        return _version(client, uri)
    except MlflowException as error:
        raise _not_had(uri, server) from error


def _not_had(uri: str, server: str) -> CotamError:
    return CotamError(
        f"{uri} could not be had from MLflow at {server}: start it with `make up`, "
        f"or see its Models page for what is registered."
    )


def _version(client, uri: str):
    name, _, alias = uri.removeprefix("models:/").partition("@")
    if alias:
        return client.get_model_version_by_alias(name, alias)
    name, _, number = name.partition("/")
    if not number.isdigit():
        raise CotamError(f"{uri} names no version; write models:/NAME@champion or models:/NAME/1.")
    return client.get_model_version(name, number)
