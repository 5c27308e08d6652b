"""Training gets the right picture by number, in an order that a resumed run gets too, and never a damaged one."""

import os
import subprocess
import sys

import numpy as np
import pytest

from components.data import ShardReader, shard_folder
from components.errors import CotamError
from components.paths import ROOT
from tests.pictures import folder_of, noise


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reader")
    shard_folder(folder_of(folder / "in", 8), folder / "out", shard_images=3)
    return folder / "out"


@pytest.fixture
def copy(shards, tmp_path):
    for path in shards.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_every_picture_is_there_once(shards):
    reader = ShardReader(shards)
    expected = {noise(number).tobytes() for number in range(8)}
    assert {reader.image(index).tobytes() for index in range(len(reader))} == expected


def test_other_readers_of_webdataset_see_the_same(shards):
    import webdataset

    urls = sorted(str(path) for path in shards.glob("*.tar"))
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8"))
    reader = ShardReader(shards)
    assert [sample["__key__"] for sample in samples] == [f"{number:09d}" for number in range(8)]
    for number, sample in enumerate(samples):
        assert np.array_equal(sample["png"], np.asarray(reader.image(number)))
        assert sample["json"]["width"] == 48


def test_the_order_is_a_function_of_seed_and_epoch(shards):
    reader = ShardReader(shards, seed=3)
    orders = [reader.order(epoch).tolist() for epoch in range(3)]
    assert all(sorted(order) == list(range(8)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert [ShardReader(shards, seed=3).order(epoch).tolist() for epoch in (2, 1, 0)] == orders[::-1]
    assert ShardReader(shards, seed=4).order(0).tolist() != orders[0]
    code = "import sys; from components.data import ShardReader; print(ShardReader(sys.argv[1], 3).order(1).tolist())"
    other = subprocess.run([sys.executable, "-c", code, shards], cwd=ROOT, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == str(orders[1])


def test_an_epoch_goes_on_where_it_stopped(shards):
    reader = ShardReader(shards, seed=1)
    whole = [image.tobytes() for image in reader.images(epoch=2)]
    assert [image.tobytes() for image in ShardReader(shards, seed=1).images(epoch=2, start=5)] == whole[5:]


def test_large_pictures_are_read_one_by_one(shards, monkeypatch):
    reader, begun = ShardReader(shards), []
    read = reader._read
    monkeypatch.setattr(reader, "_read", lambda run: begun.append(run) or read(run))
    monkeypatch.setattr("components.data.reader.RUN", 1)
    monkeypatch.setattr("components.data.reader.AHEAD_BYTES", 1)
    for taken, image in enumerate(reader.read(range(8)), 1):
        assert image.tobytes() == ShardReader(shards).image(taken - 1).tobytes()
        assert len(begun) == taken
    assert taken == 8


def test_there_is_no_picture_beyond_the_last(shards):
    reader = ShardReader(shards)
    for index in (-1, 8):
        with pytest.raises(IndexError):
            reader.image(index)


def test_a_flipped_bit_in_a_shard_is_found_before_a_picture_is_given(copy, injected):
    path = copy / "00001.tar"
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes(content)
    injected("shard")
    reader = ShardReader(copy)
    assert reader.image(0).mode == "RGB"  # another shard
    with pytest.raises(CotamError, match=r"00001.tar is not what was written"):
        reader.image(3)
    with pytest.raises(CotamError, match=r"00001.tar"):
        reader.verify()


def test_a_missing_or_short_file_is_found_at_once(copy, injected):
    os.truncate(copy / "00000.tar", 1024)
    with pytest.raises(CotamError, match=r"00000.tar has 1024 bytes instead of"):
        ShardReader(copy)
    (copy / "00000.tar").unlink()
    with pytest.raises(CotamError, match=r"00000.tar is missing"):
        ShardReader(copy)
    injected("shard", 2)


def test_a_damaged_index_is_found(copy):
    content = bytearray((copy / "index.npy").read_bytes())
    content[-1] ^= 1
    (copy / "index.npy").write_bytes(content)
    with pytest.raises(CotamError, match=r"index.npy is not what was written"):
        ShardReader(copy)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "holds no shards; make them with `cotam shard"),
        ("{", "is not valid JSON"),
        ('{"format": "other"}', "does not describe shards"),
        ('{"format": "cotam-shards", "version": 99}', "shards of version 99"),
    ],
)
def test_what_is_no_folder_of_shards_is_one_sentence(tmp_path, text, sentence):
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(CotamError, match=sentence):
        ShardReader(tmp_path)
