"""Shards on S3 give what local ones give: pictures, order and errors; over the wire, from a local server."""

import json
import shutil

import pytest

from components import paths
from components.cli import main
from components.data import ShardReader, linked_shards, shard_folder
from components.data.linking import link_shards
from components.data.s3 import Prefix
from components.errors import CotamError
from components.files import sha256, sha256_tree
from tests.pictures import folder_of
from tests.s3 import s3_server
from tests.test_data_step import inputs, run

IMAGES = 11  # in shards of 3, 3, 3 and 2
URL = "s3://shards/some/photos"


@pytest.fixture(scope="module")
def s3():
    with s3_server() as client:
        client.create_bucket(Bucket="shards")
        yield client


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    shard_folder(folder_of(folder / "in", IMAGES), folder / "out", shard_images=3)
    return folder / "out"


@pytest.fixture(scope="module")
def linked(s3, local, tmp_path_factory):
    """A link to what is on S3."""
    for path in local.iterdir():
        s3.put_object(Bucket="shards", Key=f"some/photos/{path.name}", Body=path.read_bytes())
    folder = tmp_path_factory.mktemp("linked") / "link"
    link_shards(URL, folder)
    return folder


@pytest.fixture
def there(s3, local, linked):
    """The client of S3, where some shards are not left as they should be."""
    yield s3
    for name in ("00001.tar", "00002.tar"):
        s3.put_object(Bucket="shards", Key=f"some/photos/{name}", Body=(local / name).read_bytes())


@pytest.fixture
def link(linked, tmp_path, monkeypatch):
    """A copy of the link, with a cache of its own."""
    monkeypatch.setattr(paths, "STATE", tmp_path / "state")
    monkeypatch.delenv("COTAM_SHARD_CACHE", raising=False)
    return shutil.copytree(linked, tmp_path / "link")


@pytest.fixture
def asked(monkeypatch):
    """Every request for a part of an object: (name, offset, size)."""
    asked, read = [], Prefix.read

    def watched(self, name, part=None, etag=None):
        asked.append((name, *(part or ())))
        return read(self, name, part, etag)

    monkeypatch.setattr(Prefix, "read", watched)
    return asked


def bytes_of(images):
    return [image.tobytes() for image in images]


def damage(s3, name, content):
    s3.put_object(Bucket="shards", Key=f"some/photos/{name}", Body=content)


def test_a_link_is_small_and_names_the_same_pictures(link, local):
    assert sorted(path.name for path in link.iterdir()) == [
        "digests.npy",
        "index.npy",
        "location.json",
        "manifest.json",
    ]
    for name in ("manifest.json", "index.npy"):
        assert sha256(link / name) == sha256(local / name)
    assert json.loads((link / "location.json").read_text())["url"] == URL
    linked, whole = ShardReader(link, seed=3), ShardReader(local, seed=3)
    assert linked.fingerprint == whole.fingerprint
    linked.verify()
    assert linked.order(1).tolist() == whole.order(1).tolist()


@pytest.mark.parametrize("gigabytes", ["0", "1"])
def test_pictures_are_those_of_local_shards(link, local, monkeypatch, gigabytes):
    monkeypatch.setenv("COTAM_SHARD_CACHE", gigabytes)
    linked, whole = ShardReader(link, seed=3), ShardReader(local, seed=3)
    for epoch in (0, 1):
        assert bytes_of(linked.images(epoch)) == bytes_of(whole.images(epoch))
    assert bytes_of(ShardReader(link, seed=3).images(1, start=4)) == bytes_of(whole.images(1))[4:]
    assert bytes_of(linked.read(range(IMAGES))) == bytes_of(whole.image(number) for number in range(IMAGES))
    assert bytes_of(linked.read([5, 5, 0])) == bytes_of(whole.image(number) for number in (5, 5, 0))


def test_without_a_cache_neighbours_share_a_request_and_others_bring_nothing_else(link, monkeypatch, asked):
    monkeypatch.setenv("COTAM_SHARD_CACHE", "0")
    reader = ShardReader(link)
    list(reader.read(range(IMAGES)))
    assert sorted(name for name, *_ in asked) == ["00000.tar", "00001.tar", "00002.tar", "00003.tar"]
    asked.clear()
    list(reader.read([8, 0, 5]))
    sizes = [int(reader._index[number, 2]) for number in (0, 5, 8)]
    assert sorted((name, size) for name, _, size in asked) == list(
        zip(["00000.tar", "00001.tar", "00002.tar"], sizes, strict=True)
    )
    assert not (paths.STATE / "cache/shards").exists()


def test_a_cache_is_filled_in_large_pieces_and_asked_first(link, asked):
    reader = ShardReader(link, seed=1)
    first = bytes_of(reader.images(0))
    assert len(asked) == len(reader.manifest["shards"])  # a block is larger than these shards
    assert bytes_of(ShardReader(link, seed=1).images(0)) == first
    assert len(asked) == len(reader.manifest["shards"])


def test_blocks_are_parts_of_shards(link, local, monkeypatch, asked):
    monkeypatch.setattr(linked_shards, "BLOCK", 10_000)  # less than two pictures
    reader = ShardReader(link)
    assert bytes_of(reader.images(0)) == bytes_of(ShardReader(local).images(0))
    places = {(name, offset) for name, offset, _ in asked}
    assert len(places) == len(asked) > len(reader.manifest["shards"])


def test_a_small_cache_keeps_the_first_shards_and_each_other_picture_comes_once_per_epoch(link, monkeypatch, asked):
    size = ShardReader(link).manifest["shards"][0]["bytes"]
    monkeypatch.setenv("COTAM_SHARD_CACHE", str(1.5 * size / 1e9))
    reader = ShardReader(link, seed=5)
    epochs = []
    for epoch in (0, 1):
        list(reader.images(epoch))
        epochs.append(sum(size for _, _, size in asked))
        asked.clear()
    kept = [path.name for path in (paths.STATE / "cache/shards").rglob("*.part")]
    assert kept == ["00000.part"]
    rows = reader._index
    streamed = int(rows[rows[:, 0] > 0, 2].sum())
    assert streamed <= epochs[1] < streamed + 3 * 1024 * len(rows)  # neighbours bring what lies between them
    assert epochs[0] > epochs[1]


def test_a_damaged_cache_is_fetched_again(link, local, injected):
    reader = ShardReader(link)
    whole = bytes_of(reader.read(range(IMAGES)))
    (path,) = (paths.STATE / "cache/shards").rglob("00001.part")
    content = bytearray(path.read_bytes())
    content[3000] ^= 1
    path.write_bytes(content)
    injected("shard-cache")
    assert bytes_of(reader.read(range(IMAGES))) == whole
    assert path.read_bytes() != bytes(content)


def test_other_data_sets_make_room(link, monkeypatch, tmp_path):
    list(ShardReader(link).images(0))
    caches = paths.STATE / "cache/shards"
    (caches / "another").mkdir()
    (caches / "another/00000.part").write_bytes(b"x" * 100_000)
    ShardReader(link)
    assert len(list(caches.iterdir())) == 2
    monkeypatch.setenv("COTAM_SHARD_CACHE", str(sum(e["bytes"] for e in ShardReader(link).manifest["shards"]) / 1e9))
    ShardReader(link)
    assert [path.name for path in caches.iterdir()] == [ShardReader(link).fingerprint[:16]]
    monkeypatch.setenv("COTAM_SHARD_CACHE", "much")
    with pytest.raises(CotamError, match="COTAM_SHARD_CACHE is 'much': set it to a number of gigabytes"):
        ShardReader(link)


def test_what_has_changed_is_never_given(link, there, local, monkeypatch, injected):
    monkeypatch.setenv("COTAM_SHARD_CACHE", "0")
    content = (local / "00001.tar").read_bytes()
    place = int(ShardReader(link)._index[4, 1]) + 1000
    reader = ShardReader(link)
    damage(there, "00001.tar", content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    assert bytes_of([reader.image(3)]) == bytes_of([ShardReader(local).image(3)])
    for numbers in ([4], range(IMAGES)):
        with pytest.raises(CotamError, match=f"^{URL}/00001.tar is not what the manifest says"):
            list(reader.read(numbers))
    with pytest.raises(CotamError, match=f"^{URL}/00001.tar is not what the manifest says"):
        reader.verify()
    damage(there, "00001.tar", content[:place])  # cut within a picture
    with pytest.raises(CotamError, match=f"^{URL}/00001.tar is not what the manifest says"):
        reader.image(4)
    damage(there, "00001.tar", content[:100])  # before it
    with pytest.raises(CotamError, match=r"00001.tar cannot be read: it is shorter than it was"):
        reader.image(4)
    there.delete_object(Bucket="shards", Key="some/photos/00001.tar")
    with pytest.raises(CotamError, match=r"00001.tar cannot be read: it is no longer there"):
        reader.image(4)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("components.data.s3._WAITS", (0.01,))
    with pytest.raises(CotamError, match=r"00001.tar cannot be read: Could not connect to the endpoint"):
        ShardReader(link).image(4)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(link / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(link / "none"))
    with pytest.raises(CotamError, match=r"00001.tar needs credentials; set AWS_ACCESS_KEY_ID and"):
        ShardReader(link).image(4)
    injected("remote-shard", 4)


def test_a_link_that_was_damaged_here_is_found(link):
    content = bytearray((link / "digests.npy").read_bytes())
    content[-1] ^= 1
    (link / "digests.npy").write_bytes(content)
    with pytest.raises(CotamError, match=r"digests.npy is not what was written; .* or link the shards again"):
        ShardReader(link)


def test_only_whole_shards_are_linked_and_a_link_goes_on(there, local, linked, tmp_path, asked):
    good = (local / "00002.tar").read_bytes()
    for content, sentence in (
        (good[:-1024], f"00002.tar has {len(good) - 1024} bytes instead of {len(good)}; copy the shards there again"),
        (good[:2000] + b"?" + good[2001:], "00002.tar is not what the manifest says"),
    ):
        damage(there, "00002.tar", content)
        with pytest.raises(CotamError, match=sentence):
            link_shards(URL, tmp_path / "link")
        assert not (tmp_path / "link").exists()
    damage(there, "00002.tar", good)
    before = len([name for name, *_ in asked if name == "00000.tar"])
    link_shards(URL, tmp_path / "link")
    assert len([name for name, *_ in asked if name == "00000.tar"]) == before == 1  # it was checked the first time
    assert [path.name for path in tmp_path.iterdir()] == ["link"]
    assert sha256_tree(tmp_path / "link") == sha256_tree(linked)


def test_the_command_and_the_step(there, tmp_path, capsys, monkeypatch):
    out = tmp_path / "data/photos"
    for arguments, sentence in (
        (["s3://shards/nothing"], "s3://shards/nothing holds no shards; copy a folder that `cotam shard` wrote there"),
        (["s3://no-such-bucket/x"], "s3://no-such-bucket/x cannot be read: there is no such bucket"),
        (["/a/folder"], "/a/folder names no bucket; give s3://BUCKET/PREFIX"),
        ([URL, "--seed", "0"], "--seed says how to make shards, which --link does not do"),
    ):
        assert main(["shard", *arguments, "--link", "-o", str(out)]) == 1
        assert sentence in capsys.readouterr().err
    assert not out.exists()
    assert main(["shard", URL, "--link", "-o", str(out)]) == 0
    assert f"{out}: {IMAGES} images, 4 shards" in capsys.readouterr().out

    monkeypatch.setattr(ShardReader, "verify", None)  # would fetch everything
    run(inputs(tmp_path, "data/photos"))
    assert sha256_tree(tmp_path / "out") == sha256_tree(out)
