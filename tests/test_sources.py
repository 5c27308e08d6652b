"""A folder, tar files as img2dataset writes CC3M, and S3 (over the wire, from a local server) are read alike."""

import json
import tarfile

import pytest

from components.cli import main
from components.data import ShardReader, shard_folder
from components.data.sources import open_source
from components.errors import CotamError
from components.files import sha256
from tests.pictures import file_bytes, folder_of, noise, put_tar
from tests.s3 import s3_server


def cc3m_tar(path, first, count, **options):
    """A shard as img2dataset lays it out: KEY.jpg, KEY.txt, KEY.json for every picture."""
    members = {}
    for number in range(first, first + count):
        key = f"{number:09d}"
        about = json.dumps({"caption": "a", "url": "http://example.org/a.jpg", "key": key, "status": "success"})
        members |= {f"{key}.jpg": file_bytes(noise(number), "JPEG"), f"{key}.txt": b"a caption"}
        members[f"{key}.json"] = about.encode()
    put_tar(path, members, **options)


def test_a_listing_is_sorted_and_its_key_follows_the_content(tmp_path):
    source = open_source(folder_of(tmp_path, 4))
    listing = source.list()
    assert [item.name for item in listing.items] == ["0.png", "2.png", "more/1.png", "more/3.png"]
    assert source.list().key == listing.key
    noise(50, 50, 50).save(tmp_path / "0.png")
    assert source.list().key != listing.key


def test_official_cc3m_shards_are_a_source(tmp_path):
    (tmp_path / "cc3m").mkdir()
    cc3m_tar(tmp_path / "cc3m/00000.tar", 0, 3)
    cc3m_tar(tmp_path / "cc3m/00001.tar", 10_000, 2)
    (tmp_path / "cc3m/00000_stats.json").write_text("{}")
    manifest = shard_folder(tmp_path / "cc3m", tmp_path / "out", shard_images=4)
    assert (manifest["images"], manifest["skipped"]) == (5, [])
    assert manifest["ignored"] == {".json": 6, ".txt": 5}
    reader = ShardReader(tmp_path / "out")
    stored = b"".join((tmp_path / "out" / shard["file"]).read_bytes() for shard in manifest["shards"])
    assert len(reader) == 5
    for number in (0, 1, 2, 10_000, 10_001):  # the downloaded files themselves
        assert file_bytes(noise(number), "JPEG") in stored
    assert b'"name": "00001.tar/000010001.jpg"' in stored


def test_a_damaged_or_compressed_tar_is_one_sentence(tmp_path):
    cc3m_tar(tmp_path / "0.tar", 0, 2)
    whole = (tmp_path / "0.tar").read_bytes()
    with tarfile.open(tmp_path / "0.tar") as tar:
        second = tar.getmembers()[3].offset
    for size in (0, 100, 700, second - 1, second, second + 600):
        (tmp_path / "0.tar").write_bytes(whole[:size])
        with pytest.raises(CotamError, match=r"0.tar is damaged"):
            open_source(tmp_path).list()
    cc3m_tar(tmp_path / "0.tar", 0, 2, mode="w:gz")
    with pytest.raises(CotamError, match=r"0.tar is compressed"):
        open_source(tmp_path).list()


@pytest.fixture(scope="module")
def s3():
    with s3_server() as client:
        yield client


def test_s3_gives_the_shards_that_the_same_folder_gives(s3, tmp_path, monkeypatch):
    folder = folder_of(tmp_path / "in", 5)
    (folder / "broken.jpg").write_text("x")
    (folder / "captions.csv").write_text("x")
    s3.create_bucket(Bucket="photos")
    for path in (path for path in folder.rglob("*") if path.is_file()):
        s3.put_object(Bucket="photos", Key=f"holiday/{path.relative_to(folder)}", Body=path.read_bytes())
    s3.put_object(Bucket="photos", Key="holiday/", Body=b"")  # what consoles make for a folder
    s3.put_object(Bucket="photos", Key="holiday-2/other.png", Body=b"")

    local = shard_folder(folder, tmp_path / "local", shard_images=2)
    remote = shard_folder("s3://photos/holiday", tmp_path / "remote", shard_images=2)
    assert {**remote, "source": ""} == {**local, "source": ""}
    assert remote["source"] == "s3://photos/holiday"
    assert sha256(tmp_path / "remote/00002.tar") == local["shards"][2]["sha256"]


def test_what_s3_refuses_is_one_sentence(s3, tmp_path, capsys, monkeypatch):
    s3.create_bucket(Bucket="nearly-empty")
    s3.put_object(Bucket="nearly-empty", Key="tars/00000.tar", Body=b"x")
    for url, sentence in {
        "s3://no-such-bucket/x": "s3://no-such-bucket/x cannot be read: there is no such bucket.",
        "s3://nearly-empty/nothing": "s3://nearly-empty/nothing holds no images; give a folder of images.",
        "s3://nearly-empty/tars": "holds tar files, which are read from a folder only; copy them here first, or",
        "s3://b/x": "cannot be read:",  # a name that no bucket can have
    }.items():
        assert main(["shard", url, "-o", str(tmp_path / "out")]) == 1
        assert sentence in capsys.readouterr().err
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert main(["shard", "s3://photos/x", "-o", str(tmp_path / "out")]) == 1
    assert "Could not connect" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_object_that_changes_while_it_is_sharded_is_refused(s3):
    s3.create_bucket(Bucket="restless")
    s3.put_object(Bucket="restless", Key="a.png", Body=file_bytes(noise(1), "PNG"))
    source = open_source("s3://restless")
    item = source.list().items[0]
    assert source.read(item) == file_bytes(noise(1), "PNG")
    s3.put_object(Bucket="restless", Key="a.png", Body=file_bytes(noise(2), "PNG"))
    with pytest.raises(CotamError, match="it has changed meanwhile"):
        source.read(item)
    s3.delete_object(Bucket="restless", Key="a.png")
    with pytest.raises(CotamError, match="no longer there"):
        source.read(item)
