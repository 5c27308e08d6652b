"""The sides of `cotam bench data` that need more than a disk: shards on S3, and what a training takes."""

import os
import socket
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from PIL import Image

from benchmarks.filling import fill
from components import config, paths
from components.data import ShardReader
from components.data.linking import link_shards
from components.environment import use_threads
from components.scenes import render, sample_scene
from components.training.feature_store import PORTION

Way = Callable[[], int]
"""Reads pictures and returns how many."""


@contextmanager
def store(project: Path) -> Iterator[str]:
    """The s3:// address of an empty place: in the store that AWS_ENDPOINT_URL names, or in one of `project`."""
    import boto3

    from flows import s3_store

    with ExitStack() as stack:
        if "AWS_ENDPOINT_URL" not in os.environ:
            stack.enter_context(_started(project))
        prefix = f"bench-data/{uuid.uuid4().hex}"
        yield f"s3://{s3_store.BUCKET}/{prefix}"
        bucket = boto3.Session().resource("s3").Bucket(s3_store.BUCKET)
        for entry in bucket.objects.filter(Prefix=f"{prefix}/"):
            entry.delete()


@contextmanager
def _started(project: Path) -> Iterator[None]:
    """The S3 server of `cotam services up --s3`, alone, and an environment that leads to it."""
    from flows import processes, s3_store, service_launch, services
    from flows.service_options import Options

    project.mkdir()
    service_launch.prepare(project, "s3")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with mock.patch.dict(os.environ, {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}):
        service = service_launch.start(project, "s3", {"s3": port}, Options(s3=True), {})
        try:
            services.wait_ready(project, service)
            os.environ.update(s3_store.environment(project / ".cotam" / "s3", service.url))
            yield
        finally:
            processes.end(project, "s3")


def ways(shards: Path, url: str, folder: Path) -> dict[str, Way]:
    """Copy `shards` to `url`, link them, and return every way to read them there."""
    client, bucket, prefix = upload(shards, url)
    link_shards(url, folder / "link")
    with mock.patch.dict(os.environ, {"COTAM_SHARD_CACHE": "0"}):
        streaming = ShardReader(folder / "link")
    cache = folder / "state"
    with mock.patch.object(paths, "STATE", cache):
        cached = ShardReader(folder / "link")
    pages = [
        client.generate_presigned_url(
            "get_object", Params={"Bucket": bucket, "Key": f"{prefix}/{entry['file']}"}, ExpiresIn=86400
        )
        for entry in streaming.manifest["shards"]
    ]

    def cold() -> int:
        for part in cache.rglob("*.part"):
            part.unlink()
        return count(cached.images(0))

    return {
        "S3, in order": lambda: count(streaming.read(range(len(streaming)))),
        "S3, shuffled": lambda: count(streaming.images(0)),
        "S3, shuffled, cache empty": cold,
        "S3, shuffled, cache full": lambda: count(cached.images(0)),
        "S3, webdataset": lambda: by_webdataset(pages),  # its own way to an address: curl
    }


def upload(folder: Path, url: str) -> tuple[Any, str, str]:
    """Copy the files of `folder` to `url`; the client, the bucket and the prefix."""
    import boto3

    client = boto3.Session().client("s3")
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    for path in sorted(folder.iterdir()):
        client.upload_file(str(path), bucket, f"{prefix}/{path.name}")
    return client, bucket, prefix


def training(settings: config.Settings, folder: Path) -> Way:
    """What fills the feature store in one process, from scenes in memory."""
    use_threads(1)  # as each worker that fills it
    drawn = [Image.fromarray(render(sample_scene(seed, "train", "train"))) for seed in range(PORTION + 1)]
    filling = fill(settings, drawn, settings.adapter.draws, folder)

    def once_more() -> int:
        filling.look_at(0)
        return PORTION

    return once_more


def by_webdataset(tars: Sequence[str]) -> int:
    """webdataset's own loop over shards, files or addresses; how many pictures it gave."""
    import webdataset

    samples = webdataset.WebDataset(list(tars), shardshuffle=False).shuffle(1000)
    return count(samples.decode("pilrgb").to_tuple("png;jpg"))


def count(images: Iterable[Any]) -> int:
    """How many there are, each taken."""
    return sum(1 for _ in images)
