"""What is below an address on S3: listed, and read whole or in part, however often the network fails.

boto3 asks again when a request is refused with 500 or 503 or never answered; here it is asked again when that was not
enough, and when an answer is cut while it comes, which boto3 leaves to its callers. Endpoint and credentials are those
of the AWS tools: AWS_ENDPOINT_URL, AWS_PROFILE, AWS_ACCESS_KEY_ID, an instance's role, ...
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from components.errors import CotamError

CONNECTIONS = 16  # per process

_WAITS = (0.2, 1.0, 5.0, 20.0)
"""Seconds before an object is asked for again."""

_REFUSALS = {  # S3's error codes
    "AccessDenied": "these credentials may not read it",
    "InvalidRange": "it is shorter than it was",
    "NoSuchBucket": "there is no such bucket",
    "NoSuchKey": "it is no longer there; run again to list the source anew",
    "PreconditionFailed": "it has changed meanwhile; run again to list the source anew",
    "RequestTimeTooSkewed": "this machine's clock is wrong; set it (`timedatectl set-ntp true`)",
}


class Prefix:
    """The objects below s3://BUCKET/PREFIX; safe to use from several threads, and in forked processes."""

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        self.bucket, _, prefix = url.removeprefix("s3://").partition("/")
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._clients: dict[int, Any] = {}
        if not url.startswith("s3://") or not self.bucket:
            raise CotamError(f"{url} names no bucket; give s3://BUCKET/PREFIX.")

    def list(self) -> Iterator[tuple[str, int, str]]:
        """Name below the prefix, size in bytes and ETag of every object.

        Raises:
            CotamError: the store refuses or cannot be reached.
        """
        with _network(self.url):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix)
            for entry in (entry for page in pages for entry in page.get("Contents", ())):
                yield entry["Key"].removeprefix(self.prefix), entry["Size"], entry["ETag"]

    def read(self, name: str, part: tuple[int, int] | None = None, etag: str | None = None) -> bytes:
        """The bytes of an object.

        Args:
            part: offset and number of the bytes that are wanted.
            etag: what the object must be: another one is an error.

        Raises:
            CotamError: it is not there, has changed, is shorter, or the network failed for half a minute.
        """
        asked = {"Bucket": self.bucket, "Key": self.prefix + name}
        if part:
            asked["Range"] = f"bytes={part[0]}-{sum(part) - 1}"
        if etag:
            asked["IfMatch"] = etag
        with _network(f"{self.url}/{name}"):
            for wait in _WAITS:
                try:
                    return self._client.get_object(**asked)["Body"].read()
                except Exception as error:
                    if not _passes(error):
                        raise
                    time.sleep(wait)
            return self._client.get_object(**asked)["Body"].read()

    @property
    def _client(self) -> Any:
        process = os.getpid()  # connections must not be shared with a fork
        if process not in self._clients:
            import boto3
            from botocore.config import Config

            # A session of our own, as making clients of the default one is not safe in threads.
            settings = Config(retries={"mode": "standard"}, max_pool_connections=CONNECTIONS)
            self._clients[process] = boto3.Session().client("s3", config=settings)
        return self._clients[process]


def _passes(error: Exception) -> bool:
    """Whether to ask again: the connection failed or was cut, or the store is busy."""
    from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError, ResponseStreamingError

    if isinstance(error, ClientError):
        return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500
    return isinstance(error, HTTPClientError | IncompleteReadError | ResponseStreamingError)


@contextmanager
def _network(url: str) -> Iterator[None]:
    """Turn what boto3 raises into one sentence about `url`."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except NoCredentialsError:
        raise CotamError(
            f"{url} needs credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
        ) from None
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        reason = _REFUSALS.get(code, str(error).rstrip("."))
        raise CotamError(f"{url} cannot be read: {reason}.") from None
    except (BotoCoreError, ValueError) as error:  # ValueError: an endpoint or a bucket name that cannot be one
        reason = " ".join(str(error).split()).rstrip(".")
        raise CotamError(f"{url} cannot be read: {reason}; run again to go on from here.") from None
