"""Videos: read, coded frame by frame, decoded, inspected, and never a garbage frame."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks import fuzz, fuzz_video
from components import config
from components.cli import main
from components.codec import Codec
from components.codec.video_container import MAXIMUM_VIDEO_PIXELS, unpack
from components.data import video
from components.data.video import open_video, sample
from components.errors import CotamError
from components.scenes import render, sample_scene
from tests.videos import SHADE, shade, write_video


def one_sentence(captured) -> str:
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.err
    return captured.err


@pytest.fixture(scope="module")
def codec():
    return Codec.from_pretrained(fuzz.CODEC)


@pytest.fixture(scope="module")
def frames():
    return [render(sample_scene(seed, "test", "bench"))[:64, :96] for seed in range(10)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", 50)


@given(st.integers(1, 5000), st.integers(1, 64))
def test_frames_are_spread_evenly(total, count):
    chosen = sample(total, count)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(total, count)
    if count > 1:
        assert (chosen[0], chosen[-1]) == (0, total - 1)
    if 1 < count < total:
        assert chosen == np.linspace(0, total - 1, count, dtype=int).tolist()  # as lmms-eval's models do
        steps = np.diff(chosen)
        assert steps.max() - steps.min() <= 1


@pytest.mark.parametrize(
    ("name", "codec_name"),
    [("a.mp4", "libx264"), ("a.webm", "libvpx-vp9"), ("a.avi", "mpeg4"), ("a.ts", "libx264"), ("a.h264", "libx264")],
)
@pytest.mark.parametrize("count", [1, 16])
def test_the_frames_that_are_read_are_the_chosen_ones(tmp_path, name, codec_name, count):
    found = open_video(write_video(tmp_path / name, 100, codec_name), count)
    assert found.total == 100
    assert len(found.frames) == count
    for frame, index in zip(found.frames, sample(100, count), strict=True):
        assert abs(shade(frame) - SHADE * index) <= 6
    if name != "a.h264":  # which does not say when its frames are shown
        assert found.times == [40 * index for index in sample(100, count)]


def test_a_short_video_gives_all_its_frames(tmp_path):
    assert len(open_video(write_video(tmp_path / "a.mp4", 5), 16).frames) == 5


def test_a_folder_of_frames_is_a_video(tmp_path):
    for number in range(20):
        Image.new("RGB", (20, 10), (number, 0, 0)).save(tmp_path / f"{number:02d}.png")
    (tmp_path / "notes.txt").write_text("no frame")
    found = open_video(tmp_path, 4)
    assert [int(frame[0, 0, 0]) for frame in found.frames] == [0, 6, 12, 19]
    assert (found.total, found.times) == (20, [0] * 4)


def test_what_is_no_video_is_one_sentence(tmp_path, clip):
    import av

    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.rate = 8000
        container.mux(stream.encode(sound))
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "nothing.mp4").write_bytes(b"")
    (tmp_path / "cut.mp4").write_bytes(clip.read_bytes()[:1500])
    (tmp_path / "empty").mkdir()
    (tmp_path / "mixed").mkdir()
    for side in (10, 20):
        Image.new("RGB", (side, side)).save(tmp_path / f"mixed/{side}.png")
    for name, words in {
        "sound.wav": "has no frames: there is no video in it",
        "text.mp4": "is not a video that can be read",
        "nothing.mp4": "is not a video that can be read",
        "cut.mp4": "is not a video that can be read",
        "none.mp4": "does not exist",
        "empty": "has no frames: it holds no images",
        "mixed": "frames of 10 x 10 and of 20 x 20 pixels",
    }.items():
        with pytest.raises(CotamError, match=words) as found:
            open_video(tmp_path / name)
        assert "\n" not in str(found.value)


def test_times_that_fall_are_held(clip, tmp_path, monkeypatch):
    found = video._by_counting(clip, (64, 48), 4)
    falling = [found[1][place] for place in (0, 2, 1, 3)]
    monkeypatch.setattr(video, "_by_seeking", lambda *_: None)
    monkeypatch.setattr(video, "_by_counting", lambda *_: (found[0], falling))
    times = open_video(clip, 4).times
    assert times[1] == times[2] and times == sorted(times)
    out = tmp_path / "clip.cotamv"
    assert main(["encode", str(clip), "-o", str(out), "--frames", "4", "--plain"]) == 0
    assert unpack(out.read_bytes())[0].times == times


def test_frames_of_too_many_pixels_together_are_refused(clip, tmp_path, monkeypatch):
    for number in range(4):
        Image.new("RGB", (64, 48)).save(tmp_path / f"{number}.png")
    monkeypatch.setattr(video, "MAXIMUM_VIDEO_PIXELS", 3 * 64 * 48)
    raw = write_video(tmp_path / "a.h264", 20)
    for source in (clip, raw, tmp_path):
        assert len(open_video(source, 3).frames) == 3
        with pytest.raises(CotamError, match=r"4 frames of .* take fewer \(--frames\)"):
            open_video(source, 4)


def test_encode_takes_what_decode_takes():
    assert video.MAXIMUM_VIDEO_PIXELS == MAXIMUM_VIDEO_PIXELS


def test_a_video_is_its_frames_coded_singly(codec, frames):
    levels = [np.random.default_rng(n).integers(-1, 2, (4, 4)).astype(np.int8) for n in range(len(frames))]
    times = [500 * n for n in range(len(frames))]
    stream = codec.encode_video(frames, 3, levels, times)
    coded, streams = unpack(stream)
    assert streams == codec.encode(frames, 3, levels)
    assert coded.times == times
    assert len(stream) < sum(map(len, streams))
    for one, other in zip(codec.decode_video(stream), codec.decode(streams), strict=True):
        assert np.array_equal(one.image, other.image)
        assert np.array_equal(one.latent, other.latent)


def test_bad_videos_are_named_by_frame(codec, frames):
    whole, _ = unpack(good := codec.encode_video(frames[:3], 2))
    other = codec.encode_video(frames[3:6], 2)
    start = len(good) - 4 * sum(frame.words for frame in whole.frames[1:])
    damaged = good[: start + 12] + bytes([good[start + 12] ^ 1]) + good[start + 13 :]
    with pytest.raises(CotamError, match="Frame 1 of 3: The stream is damaged"):
        codec.decode_video(damaged)
    head = len(unpack(other)[0].head())
    with pytest.raises(CotamError):
        codec.decode_video(good[: len(whole.head())] + other[head:])
    with pytest.raises(CotamError, match="differ in size"):
        codec.encode_video([frames[0], frames[0][:32]], 2)
    with pytest.raises(CotamError, match="no frames"):
        codec.encode_video([], 2)
    with pytest.raises(CotamError, match="more than 1000 pixels"):
        codec.decode_video(good, 1000)
    with pytest.raises(CotamError, match=r"an image, a \.cotam file"):
        codec.decode_video(codec.encode(frames[:1], 2)[0])


def test_a_clip_is_encoded_inspected_and_decoded(clip, tmp_path, capsys):
    out, folder = tmp_path / "clip.cotamv", tmp_path / "frames"
    assert main(["encode", str(clip), "-o", str(out), "--frames", "8", "--quality", "3", "--json"]) == 0
    encoded = json.loads(capsys.readouterr().out)
    assert (encoded["frames"], encoded["total_frames"], encoded["bytes"]) == (8, 50, out.stat().st_size)
    assert encoded["bpp"] == pytest.approx(8 * out.stat().st_size / (8 * 64 * 48))
    assert main(["inspect", str(out), "--json"]) == 0
    [described] = json.loads(capsys.readouterr().out)
    assert described["milliseconds"] == [40 * index for index in sample(50, 8)]
    assert described["grid"] is not None
    assert main(["inspect", str(out)]) == 0
    assert "8 frames of 64 x 48 pixels" in capsys.readouterr().out
    assert main(["decode", str(out), "-o", str(folder)]) == 0
    assert "8 frames" in capsys.readouterr().out
    names = sorted(path.name for path in folder.iterdir())
    assert names == [f"{number:04d}.png" for number in range(8)]
    shades = [shade(np.asarray(Image.open(folder / name))) for name in names]
    assert np.abs(np.array(shades) - SHADE * np.array(sample(50, 8))).max() < 12

    assert main(["decode", str(out), "-o", str(folder)]) == 1
    assert "--overwrite" in one_sentence(capsys.readouterr())
    assert main(["decode", str(out), "-o", str(folder), "--overwrite", "--format", "webp"]) == 0
    assert {path.suffix for path in folder.iterdir()} == {".webp"}
    (folder / "mine.txt").write_text("kept")
    capsys.readouterr()
    assert main(["decode", str(out), "-o", str(folder), "--overwrite"]) == 1
    assert "other files than frames" in one_sentence(capsys.readouterr())
    assert (folder / "mine.txt").read_text() == "kept"

    again = tmp_path / "again.cotamv"
    (folder / "mine.txt").unlink()
    assert main(["encode", str(folder), "-o", str(again), "--frames", "2", "--plain"]) == 0
    assert "2 of 8 frames" in capsys.readouterr().out


@pytest.mark.parametrize("levels", [5, 7])
def test_a_video_has_no_maps_of_more_levels(levels, clip, tmp_path, capsys, monkeypatch):
    chosen = config.load()
    chosen = chosen.model_copy(update={"guidance": chosen.guidance.model_copy(update={"levels": levels})})
    monkeypatch.setattr(config, "load", lambda: chosen)
    out = tmp_path / "clip.cotamv"
    assert main(["encode", str(clip), "-o", str(out), "--frames", "2"]) == 1
    assert "three levels only; set guidance.levels to 3" in one_sentence(capsys.readouterr())
    assert not out.exists()
    assert main(["encode", str(clip), "-o", str(out), "--frames", "2", "--plain"]) == 0


def test_nor_from_python(codec):
    frames = [np.full((32, 32, 3), shade, np.uint8) for shade in (60, 200)]
    maps = [np.array([[0, 2], [-2, 1]], np.int8)] * 2
    with pytest.raises(CotamError, match="three levels only"):
        codec.encode_video(frames, 3, maps)


def test_mistakes_on_the_command_line(clip, tmp_path, capsys):
    picture, stream = tmp_path / "a.png", tmp_path / "clip.cotamv"
    Image.new("RGB", (20, 10)).save(picture)
    assert main(["encode", str(clip), "-o", str(stream), "--frames", "2", "--plain"]) == 0
    capsys.readouterr()
    (tmp_path / "cut.cotamv").write_bytes(stream.read_bytes()[:-4])
    (tmp_path / "bad.mp4").write_text("no video")
    for arguments, words in [
        (["encode", str(picture), "--frames", "4"], "is no video; leave out --frames"),
        (["encode", str(tmp_path / "bad.mp4")], "is not a video that can be read"),
        (["encode", str(tmp_path / "none.mp4")], "does not exist"),
        (["encode", str(clip), "--frames", "5000"], "too many"),
        (["decode", str(stream), "-o", str(tmp_path / "out.png")], "is a video: name a folder"),
        (["decode", str(stream), "-o", str(tmp_path / "f"), "--maximum-pixels", "100"], "more than 100 pixels"),
        (["decode", str(tmp_path / "cut.cotamv"), "-o", str(tmp_path / "f")], "cut.cotamv: The video is truncated"),
        (["inspect", str(tmp_path / "cut.cotamv")], "truncated"),
    ]:
        assert main(arguments) == 1
        assert words in one_sentence(capsys.readouterr())
    assert not (tmp_path / "f").exists()
    assert not (tmp_path / "bad.cotamv").exists()


@pytest.fixture(scope="module")
def meant(codec):
    return fuzz_video.originals(codec)


@pytest.fixture(scope="module")
def judge(codec, meant):
    return fuzz_video.Judge(codec, meant)


@settings(max_examples=60)
@given(st.data())
def test_any_edits_end_well(judge, meant, data):
    stream = bytearray(data.draw(st.sampled_from(meant)))
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6)):
        stream[place % len(stream)] = value
    end = data.draw(st.sampled_from(meant))
    judge(bytes(stream)[: data.draw(st.integers(0, len(stream)))] + end[data.draw(st.integers(0, len(end))) :])


def test_a_sample_of_the_fuzzer_ends_well(judge, meant):
    found = list(fuzz.run(7, 150, judge, meant, kind_of=fuzz_video.Mutator))
    assert [one for one in found if one["failed"]] == []
    assert {one["kind"] for one in found} == set(fuzz_video.KINDS)
    ends = Counter(one["end"] for one in found)
    assert ends["right"] > 3  # frames in another order are right, if the index says so
    assert any("arithmetic disagrees" in end for end in ends)
