"""`cotam bench data` reads every picture in every way, from a real store, and leaves nothing there."""

from benchmarks import data
from flows import s3_store
from tests.small_checkout import tiny_settings


def test_every_way_reads_every_picture(s3, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "SHARD_IMAGES", 4)
    found = data.measure(6, 1, tiny_settings(tmp_path / "models"), tmp_path)  # raises if a way gives more or fewer
    assert found["shards"] == 2
    reading = found["reading"]
    assert {name for pair in data.READING for name in pair} == set(reading["images_per_second"])
    assert all(rate["lowest"] > 0 for rate in reading["images_per_second"].values())
    assert "Contents" not in s3.list_objects_v2(Bucket=s3_store.BUCKET, Prefix="bench-data/")
