"""The cache of streams: one encoding per image, whoever asks, and never a wrong stream."""

import multiprocessing
import os
import time
from types import SimpleNamespace

import numpy as np
import pytest

from components.codec import Codec
from components.errors import CotamError
from components.evaluation import coding_cache
from components.evaluation.coding import Coder, load_guide
from components.evaluation.coding_cache import CodingCache
from components.evaluation.streams import Setting
from components.paths import PRETRAINED
from components.scenes import render, sample_scene


@pytest.fixture(scope="module")
def real():
    return Codec.from_pretrained("codec/elic-micro")


@pytest.fixture
def codec(real, monkeypatch):
    """The codec, and in `codec.coded` how many images it was given to encode."""
    encode = type(real).encode
    real.coded = 0

    def counted(self, images, quality, guidance=None):
        self.coded += len(images)
        return encode(self, images, quality, guidance)

    monkeypatch.setattr(type(real), "encode", counted)
    return real


@pytest.fixture(scope="module")
def pictures():
    return [render(sample_scene(seed, "test", "bench"))[:48, :64] for seed in range(6)]


def guide(k=0.75):
    return load_guide(PRETRAINED / "clip/micro", layers=[0, 1], grid=4, k=k)


def test_an_image_is_coded_once_whoever_asks(codec, pictures, tmp_path):
    expected = codec.encode(pictures, 3)
    codec.coded = 0
    for _ in range(4):  # four MLLMs, each in a process of its own as it were
        cache = CodingCache(tmp_path / "cache")
        assert cache.encode(codec, [*pictures, pictures[0], pictures[3]], 3) == [*expected, expected[0], expected[3]]
    assert codec.coded == 6
    assert (cache.encoded, cache.found) == (0, 8)


def test_another_quality_codec_image_or_guidance_is_another_stream(codec, pictures, tmp_path):
    cache, one = CodingCache(tmp_path), pictures[:1]
    streams = [
        cache.encode(codec, one, 3)[0],
        cache.encode(codec, one, 4)[0],
        cache.encode(codec, one, 3, guide())[0],
        cache.encode(codec, one, 3, guide(k=0.1))[0],
        cache.encode(codec, pictures[1:2], 3)[0],
        cache.encode(codec, [np.ascontiguousarray(one[0][:, ::-1])], 3)[0],
    ]
    assert codec.coded == cache.encoded == len(set(streams)) == 6
    other = SimpleNamespace(
        model_id="0a1b2c3d",
        arithmetic="float32",
        device=SimpleNamespace(type="cpu"),
        encode=lambda images, quality, levels: [b"other" for _ in images],
    )
    assert cache.encode(other, one, 3) == [b"other"]
    assert cache.encode(codec, one, 3, guide())[0] == streams[2]
    assert codec.coded == 6


def test_other_arithmetic_is_another_stream(monkeypatch):
    plain, fast = (Codec.from_pretrained("codec/elic-micro", fast=fast) for fast in (False, True))
    settings = [coding_cache._settings(codec, 3, None) for codec in (plain, fast)]
    monkeypatch.setattr("components.codec.fast.REVISION", 0)
    settings.append(coding_cache._settings(fast, 3, None))
    assert len(set(settings)) == 3


def test_shape_is_part_of_a_picture(codec, tmp_path):
    flat = np.zeros((16, 64, 3), np.uint8)
    cache = CodingCache(tmp_path)
    assert cache.encode(codec, [flat], 3) != cache.encode(codec, [flat.reshape(64, 16, 3)], 3)


def entries(folder):
    return sorted(path for path in folder.glob("??/*") if path.is_file())


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "swapped"])
def test_a_damaged_entry_is_coded_again(codec, pictures, tmp_path, damage):
    cache = CodingCache(tmp_path)
    expected = cache.encode(codec, pictures[:2], 3)
    first, second = entries(tmp_path)
    content = first.read_bytes()
    harmed = {
        "cut": content[:-3],
        "flipped": content[:50] + bytes([content[50] ^ 1]) + content[51:],
        "empty": b"",
        "swapped": second.read_bytes(),  # whole, but of another picture
    }
    first.write_bytes(harmed[damage])
    again = CodingCache(tmp_path)
    assert again.encode(codec, pictures[:2], 3) == expected
    assert again.encoded == 1
    assert first.read_bytes() == content


def test_the_limit_removes_what_was_used_longest_ago(codec, pictures, tmp_path):
    cache = CodingCache(tmp_path)
    for picture in pictures:
        cache.encode(codec, [picture], 3)
    sizes = [path.stat().st_size for path in entries(tmp_path)]
    now = time.time()
    for age, picture in enumerate(pictures):  # the first was used last
        before = {path: path.stat().st_mtime_ns for path in entries(tmp_path)}
        cache.encode(codec, [picture], 3)
        [used] = [path for path in before if path.stat().st_mtime_ns != before[path]]
        os.utime(used, (now - 100 * age, now - 100 * age))
    (tmp_path / "00").mkdir(exist_ok=True)
    (left := tmp_path / "00/.half.12345678.tmp").write_bytes(b"of a killed process")
    os.utime(left, (now - 7200, now - 7200))
    small = CodingCache(tmp_path, limit=sum(sizes) - 1)
    small.sweep()
    kept = entries(tmp_path)
    assert sum(path.stat().st_size for path in kept) <= 0.9 * small.limit
    assert not left.exists()
    small.encode(codec, pictures[:1], 3)
    assert small.found == 1
    small.encode(codec, pictures[-1:], 3)
    assert small.encoded == 1


def _share(folder, pictures, results, start):
    codec = Codec.from_pretrained("codec/elic-micro")
    cache = CodingCache(folder)
    start.wait()
    streams = cache.encode(codec, pictures, 2)
    results.put((cache.encoded, cache.found, streams))


def test_processes_that_want_the_same_images_code_each_once(real, pictures, tmp_path):
    context = multiprocessing.get_context("spawn")
    results, start = context.Queue(), context.Barrier(3)
    processes = [context.Process(target=_share, args=(tmp_path, pictures, results, start)) for _ in range(3)]
    for process in processes:
        process.start()
    found = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    expected = real.encode(pictures, 2)
    assert sum(encoded for encoded, _, _ in found) == len(pictures)
    assert sum(hits for _, hits, _ in found) == 2 * len(pictures)
    assert all(streams == expected for _, _, streams in found)
    assert len(entries(tmp_path)) == len(pictures)


def test_a_folder_that_cannot_be_written_costs_the_cache_only(codec, pictures, tmp_path, monkeypatch, capsys):
    cache = CodingCache(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert cache.encode(codec, pictures[:2], 3) == codec.encode(pictures[:2], 3)
    assert capsys.readouterr().err.count("No space left on device") == 1
    assert list(tmp_path.glob("??/*")) == []
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(CotamError, match="cannot hold a cache"):
        CodingCache(tmp_path / "file")


def test_a_folder_that_is_not_ours_costs_the_cache_only(codec, pictures, tmp_path, monkeypatch, capsys):
    expected = codec.encode(pictures[:2], 3)
    assert CodingCache("/proc/nobody/makes/folders/here").encode(codec, pictures[:2], 3) == expected
    assert capsys.readouterr().err.count("coding goes on without it") == 1

    filled = CodingCache(tmp_path)
    filled.encode(codec, pictures[:1], 3)

    def denied(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(coding_cache, "FileLock", denied)
    cache = CodingCache(tmp_path)
    assert cache.encode(codec, pictures[:2], 3) == expected
    assert (cache.found, cache.encoded) == (1, 1)
    assert capsys.readouterr().err.count("Permission denied") == 1
    assert len(list(tmp_path.glob("??/*"))) == 1


def test_a_coder_counts_what_it_encoded(codec, pictures, tmp_path):
    named = {str(number): picture for number, picture in enumerate(pictures)}
    plain, cached = Coder(codec), Coder(codec, guide(), CodingCache(tmp_path))
    setting = Setting("elic", "3")
    assert plain.encode(setting, named) == cached.encode(setting, named) == cached.encode(setting, named)
    assert (plain.encoded, cached.encoded) == (6, 6)
    guided = Coder(codec, guide()).encode(Setting("cotam", "3"), named)
    assert cached.encode(Setting("cotam", "3"), named) == guided
    assert cached.encoded == 12
