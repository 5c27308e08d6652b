"""A large data set from end to end (benchmarks/many_images.py), which raises where anything is not as it was packed."""

import json

import pytest

from benchmarks import many_images


def test_a_few_hundred_pictures(s3, tmp_path, monkeypatch, injected):
    monkeypatch.setattr(many_images, "TAR_IMAGES", 200)
    found = many_images.measure(500, 32, 3, 25, tmp_path)
    injected("sharding")
    assert found["shards"] >= 20 and found["shards_kept"] >= 1
    assert all(way["images_per_second"] > 0 and way["peak_mb"] > 0 for way in found["ways"].values())


@pytest.mark.soak
def test_a_hundred_thousand_pictures(s3, tmp_path, capsys, injected):
    found = many_images.measure(100_000, 64, 4, 1000, tmp_path)
    injected("sharding")
    with capsys.disabled():
        print(json.dumps(found, indent=2))
    # What grows with their number is a row of the index and a place in the order: 32 bytes a picture.
    assert all(found["ways"][way]["peak_mb"] < 500 for way in ("disk, shuffled", "disk, in order"))
