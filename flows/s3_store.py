"""An S3 server for one machine: OpenStack Swift, from Debian's packages, with state in `.cotam/s3`.

A real server over the wire, for tests and small teams; on a cluster use the store that it has (docs/cluster.md). The
key is made at the first start, and lies in a file that only its owner may read.
"""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from components.errors import CotamError
from components.files import atomic_write

BUCKET = "cotam"
ACCESS_KEY = "cotam:cotam"  # Swift's account and user
SYSTEM_PYTHON = Path("/usr/bin/python3")
_PACKAGE = Path("/usr/lib/python3/dist-packages/swift/proxy/server.py")

_SWIFT_CONF = """[swift-hash]
swift_hash_path_suffix = {suffix}
"""

_PROXY_CONF = """[DEFAULT]
swift_dir = {folder}
log_custom_handlers = cotam_swift.log_to_stderr
log_level = WARNING

[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck listing_formats bulk s3api tempauth copy slo dlo proxy-server

[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
node_timeout = 60
conn_timeout = 5

[filter:tempauth]
use = egg:swift#tempauth
user_cotam_cotam = {secret} .admin

[filter:s3api]
use = egg:swift#s3api
location = us-east-1

[filter:catch_errors]
use = egg:swift#catch_errors

[filter:gatekeeper]
use = egg:swift#gatekeeper

[filter:healthcheck]
use = egg:swift#healthcheck

[filter:listing_formats]
use = egg:swift#listing_formats

[filter:bulk]
use = egg:swift#bulk

[filter:copy]
use = egg:swift#copy

[filter:slo]
use = egg:swift#slo

[filter:dlo]
use = egg:swift#dlo
"""


def prepare(folder: Path) -> None:
    """Make the store's configuration and key, once.

    Raises:
        CotamError: Swift is not installed.
    """
    if not _PACKAGE.exists():
        raise CotamError("The S3 server, OpenStack Swift, is not installed: run infra/services.sh, which installs it.")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    if not (folder / "key").exists():
        _private(folder / "key", secrets.token_urlsafe(32))
    if not (folder / "swift.conf").exists():
        _private(folder / "swift.conf", _SWIFT_CONF.format(suffix=secrets.token_hex(16)))
    _private(folder / "proxy-server.conf", _PROXY_CONF.format(folder=folder, secret=secret(folder)))


def secret(folder: Path) -> str:
    """The secret key of the store."""
    return (folder / "key").read_text()


def command(folder: Path, host: str, port: int) -> list[str]:
    """What serves the store."""
    return [str(SYSTEM_PYTHON), "-I", str(Path(__file__).with_name("swift_server.py")), str(folder), host, str(port)]


def environment(folder: Path, url: str) -> dict[str, str]:
    """What boto3, DVC and MLflow need to use the store."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": secret(folder),
        "AWS_SESSION_TOKEN": "",
        "AWS_DEFAULT_REGION": "us-east-1",
        # A store that is busy says 503 or cuts the connection; one request in ten may fail and a run still ends well.
        "AWS_RETRY_MODE": "standard",
        "AWS_MAX_ATTEMPTS": "8",
        # Newer clients add checksums in a trailer by default, which Swift 2.30 takes for part of the object.
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
    }


def make_bucket(environ: Mapping[str, str]) -> None:
    """Create the bucket, unless it is there, in the store that the AWS_ variables of `environ` name.

    Raises:
        BotoCoreError, ClientError: of botocore; the store does not answer (yet), or refuses.
    """
    import boto3
    from botocore.config import Config

    settings = Config(
        request_checksum_calculation="when_required",
        s3={"addressing_style": "path"},
        retries={"mode": "standard"},
        proxies={},  # none, whatever the environment says: the store is on this machine or in this network
    )
    client = boto3.client(
        "s3",
        endpoint_url=environ["AWS_ENDPOINT_URL"],
        aws_access_key_id=environ["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environ["AWS_SECRET_ACCESS_KEY"],
        region_name=environ["AWS_DEFAULT_REGION"],
        config=settings,
    )
    if BUCKET not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=BUCKET)


def _private(path: Path, text: str) -> None:
    atomic_write(path, text)
    path.chmod(0o600)


if __name__ == "__main__":  # for a store that is not ours
    make_bucket(os.environ)
