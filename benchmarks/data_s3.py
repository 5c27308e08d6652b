"""The sides of `cotam bench data` that need more than a disk: shards on S3, and what a training takes."""

import os
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from PIL import Image

from components import config, paths
from components.data import ShardReader
from components.data.linking import link_shards
from components.environment import use_threads
from components.errors import CotamError

Way = Callable[[], int]
"""Reads pictures and returns how many."""

START_SECONDS = 120


@contextmanager
def store(folder: Path) -> Iterator[str]:
    """The s3:// address of an empty place: in the store that AWS_ENDPOINT_URL names, or in one started for this."""
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    from flows import s3_store

    process = None
    if "AWS_ENDPOINT_URL" not in os.environ:
        s3_store.prepare(folder)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        settings = s3_store.environment(folder, f"http://127.0.0.1:{port}")
        log = open(folder / "log", "wb")  # noqa: SIM115 - the server's, for as long as it runs
        process = subprocess.Popen(s3_store.command(folder, "127.0.0.1", port), stdout=log, stderr=log)
    else:
        settings = {}
    nearby = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"} if process else {}
    with mock.patch.dict(os.environ, settings | nearby):
        try:
            give_up = time.monotonic() + START_SECONDS
            while process:
                try:
                    s3_store.make_bucket(os.environ)
                    break
                except (BotoCoreError, ClientError):
                    if process.poll() is not None or time.monotonic() > give_up:
                        said = (folder / "log").read_text()[-300:]
                        raise CotamError(f"The S3 server did not start: {said}") from None
                    time.sleep(0.5)
            prefix = f"bench-data/{uuid.uuid4().hex}"
            yield f"s3://{s3_store.BUCKET}/{prefix}"
            bucket = boto3.Session().resource("s3").Bucket(s3_store.BUCKET)
            for entry in bucket.objects.filter(Prefix=f"{prefix}/"):
                entry.delete()
        finally:
            if process:
                process.terminate()
                process.wait()


def ways(shards: Path, url: str, folder: Path) -> dict[str, Way]:
    """Copy `shards` to `url`, link them, and return every way to read them there."""
    import boto3
    import webdataset

    client = boto3.Session().client("s3")
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    for path in sorted(shards.iterdir()):
        client.upload_file(str(path), bucket, f"{prefix}/{path.name}")
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
        return _count(cached.images(0))

    def by_webdataset() -> int:  # its own way to an address: curl
        samples = webdataset.WebDataset(pages, shardshuffle=False).shuffle(1000).decode("pilrgb").to_tuple("png;jpg")
        return _count(samples)

    return {
        "S3, in order": lambda: _count(streaming.read(range(len(streaming)))),
        "S3, shuffled": lambda: _count(streaming.images(0)),
        "S3, shuffled, cache empty": cold,
        "S3, shuffled, cache full": lambda: _count(cached.images(0)),
        "S3, webdataset": by_webdataset,
    }


def training(reader: ShardReader, folder: Path) -> Way:
    """What fills the feature store in one process, with the settings of params.yaml, from pictures in memory."""
    from components.codec.codec import Codec
    from components.training.feature_store import PORTION, FeatureStore, Plan
    from components.training.tower import training_tower
    from components.vision import load_tower

    class Unfilled(FeatureStore):
        def _fill(self, *_: Any) -> None:
            return

    settings = config.load()
    use_threads(1)  # as each worker that fills it
    guidance = settings.guidance.model_dump(exclude={"tower", "scope"})
    adapter = settings.adapter
    plan = Plan(settings.seed, adapter.qualities, draws=adapter.draws, held_out=1, **guidance)
    codec = Codec.from_pretrained(settings.codec[settings.codecs[0]].weights, fast=None)
    tower = training_tower(load_tower(settings.mllm[settings.mllms[0]].weights, bf16=True))
    guide = load_tower(settings.guidance.tower)
    store = Unfilled(folder, reader, plan, codec, guide, tower, workers=2)
    pictures: list[Image.Image] = list(reader.read(range(PORTION)))

    def fill() -> int:
        store.look_at(lambda _: pictures, tower.geometry.output_size[0], codec, guide, tower, 0)
        return len(pictures)

    fill()  # the first is slower
    return fill


def _count(images: Iterable[Any]) -> int:
    return sum(1 for _ in images)
