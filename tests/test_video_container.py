"""The `.cotamv` container: written and read back, and every damage named before anything is decoded."""

import re
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.codec import container
from components.codec.container import FREE_GRIDS, Header
from components.codec.video_container import MAGIC, Frame, Video, is_video, pack, read_video, unpack
from components.errors import CotamError
from components.paths import ROOT

cells = st.integers(1, 255)
headers = st.builds(
    Header,
    model_id=st.binary(min_size=4, max_size=4).map(bytes.hex),
    width=st.integers(1, 300) | st.integers(1, 5000),
    height=st.integers(1, 300) | st.integers(1, 5000),
    quality=st.integers(0, 9),
    grid=st.sampled_from(FREE_GRIDS) | st.tuples(cells, cells),
)
payloads = st.binary(min_size=8, max_size=600).map(lambda data: data[: len(data) // 4 * 4])
frames = st.lists(
    st.tuples(payloads, st.integers(0, 2**32 - 1), st.integers(0, 300) | st.integers(0, 2**32 - 1)),
    min_size=1,
    max_size=6,
)


def make(header, found):
    streams = [container.pack(header, payload, check) for payload, check, _ in found]
    times, now = [], 0
    for _, _, step in found:
        now += step
        times.append(now)
    return streams, times, pack(streams, times)


@given(headers, frames)
def test_what_is_packed_is_unpacked(header, found):
    streams, times, stream = make(header, found)
    video, again = unpack(stream, 1 << 40)
    assert again == streams
    assert video.times == times
    assert video.header == header
    assert video.pixels == len(streams) * header.width * header.height


def by_the_document(stream):
    """A reader of docs/bitstream.md alone: the `.cotam` stream of every frame, and the times."""
    assert stream[:2] == b"\xc0\x7b"
    assert stream[2] >> 4 == 1
    shared = 14 + (stream[3] >> 6) + 2 * (stream[3] >> 4 & 3 == 3)
    (count,) = struct.unpack_from("<H", stream, shared)
    place, entries, now = shared + 2, [], 0

    def number():
        nonlocal place
        value, bits = 0, 0
        while True:
            byte, place = stream[place], place + 1
            value, bits = value + (byte % 128 << bits), bits + 7
            if byte < 128:
                return value

    for _ in range(count):
        words, now = number(), now + number()
        entries.append((words, now, stream[place : place + 4]))
        place += 4
    assert struct.pack("<I", zlib.crc32(stream[:8] + bytes(4) + stream[12:place])) == stream[8:12]
    found = []
    for words, _, check in entries:
        first = bytes([0xC0, 0x7A, 0x20 | stream[2] & 15, stream[3]]) + stream[4:8] + check + stream[12:shared]
        sealed = first[:3] + bytes([first[3] | int.from_bytes(first, "big") % 13]) + first[4:]
        found.append(sealed + stream[place : place + 4 * words])
        place += 4 * words
    assert place == len(stream)
    return found, [now for _, now, _ in entries]


@given(headers, frames)
def test_the_document_says_how_to_read_it(header, found):
    streams, times, stream = make(header, found)
    assert by_the_document(stream) == (streams, times)


def test_the_documents_example():
    example = re.search(r"An example of a video.\*\* `([0-9a-f ]+)`", (ROOT / "docs/bitstream.md").read_text()).group(1)
    video = Video(Header("0a1b2c3d", 320, 180, 3, (8, 8)), (Frame(300, 0, 0x11223344), Frame(2, 520, 0x55667788)))
    assert video.head().hex(" ") == example


@given(headers, frames, st.data())
def test_any_change_is_one_sentence_or_seen_later(header, found, data):
    stream = bytearray(make(header, found)[2])
    for _ in range(data.draw(st.integers(0, 3))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(stream)[: data.draw(st.integers(0, len(stream)))] + data.draw(st.binary(max_size=5))
    try:
        video, streams = unpack(cut, 1 << 40)
    except CotamError as error:
        assert "\n" not in str(error)
        return
    assert pack(streams, video.times) == cut  # nothing has two ways to be written


@given(headers, frames, st.data())
def test_a_flipped_bit_in_head_or_index_is_seen_at_once(header, found, data):
    stream = bytearray(make(header, found)[2])
    length = len(stream) - sum(len(payload) for payload, _, _ in found)
    bit = data.draw(st.integers(0, 8 * length - 1))
    stream[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CotamError):
        unpack(bytes(stream), 1 << 62)


HEADER = Header("0a1b2c3d", 64, 48, 4, (8, 8))
GOOD = pack([container.pack(HEADER, bytes(12), 7), container.pack(HEADER, bytes(8), 8)], [0, 40])


def sealed(stream, length):
    bare = stream[:8] + bytes(4) + stream[12:length]
    return bare[:8] + zlib.crc32(bare).to_bytes(4, "little") + stream[12:]


def rewritten(**changes):
    frames = changes.pop("frames", (Frame(3, 0, 7), Frame(2, 40, 8)))
    return Video(HEADER, frames).head() + bytes(20)


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (b"", "not a .cotamv stream"),
        (b"GIF89a", "not a .cotamv stream"),
        (container.pack(HEADER, bytes(8), 1), "an image, a .cotam file"),
        (GOOD[:2] + b"\x24" + GOOD[3:], "version 2, this program reads 1; update the program"),
        (GOOD[:2] + b"\x04" + GOOD[3:], "version 0, this program reads 1; encode the video again"),
        (GOOD[:2], "not even its index is whole"),
        (GOOD[:13], "not even its index is whole"),
        (GOOD[:22], "not even its index is whole"),
        (GOOD[:-1], "truncated: 47 of 48 bytes"),
        (GOOD + b"\0", "1 bytes follow its last frame"),
        (GOOD[:2] + b"\x1a" + GOOD[3:], "its head has no meaning"),
        (GOOD[:3] + b"\x11" + GOOD[4:], "its head has no meaning"),
        (GOOD[:3] + b"\xd0" + GOOD[4:], "its head has no meaning"),
        (GOOD[:14] + bytes(2) + GOOD[16:], "has no frames"),
        (GOOD[:14] + b"\xff\xff" + GOOD[16:], "not even its index is whole"),
        (GOOD[:16] + b"\x02" + GOOD[17:], "fails its check"),
        (sealed(GOOD[:16] + b"\x83\x00" + GOOD[17:], 29), "its index has no meaning"),
        (sealed(GOOD[:16] + b"\xff\xff\xff\xff\x7f" + GOOD[17:], 32), "its index has no meaning"),
        (sealed(GOOD[:16] + b"\xff\xff\xff\xff\xff\x01" + GOOD[17:], 33), "its index has no meaning"),
        (rewritten(frames=(Frame(1, 0, 7), Frame(4, 0, 7))), "its index has no meaning"),
        (rewritten(frames=(Frame(3, 0, 7), Frame(1 << 30, 0, 7))), "truncated: 52 of"),
    ],
)
def test_what_is_wrong_is_named(stream, words):
    with pytest.raises(CotamError, match=re.escape(words)) as found:
        unpack(stream)
    assert "\n" not in str(found.value)


def test_a_declared_size_is_checked_before_memory_is_taken():
    large = Video(Header("0a1b2c3d", 65535, 65535, 4, None), (Frame(2, 0, 7),) * 1000).head() + bytes(8000)
    with pytest.raises(CotamError, match=r"1000 frames of 65535 x 65535.*--maximum-pixels"):
        unpack(large)
    with pytest.raises(CotamError, match="more than 6143 pixels"):
        unpack(GOOD, 2 * 64 * 48 - 1)


def test_frames_that_do_not_belong_together_are_refused():
    other = container.pack(Header("0a1b2c3d", 64, 48, 5, (8, 8)), bytes(8), 1)
    with pytest.raises(CotamError, match="differ in size, codec, quality or map"):
        pack([container.pack(HEADER, bytes(8), 1), other], [0, 0])
    with pytest.raises(CotamError, match="no frames"):
        pack([], [])
    with pytest.raises(ValueError, match="never fall"):
        pack([other, other], [1, 0])


def test_files_are_named(tmp_path):
    (tmp_path / "cut.cotamv").write_bytes(GOOD[:-1])
    (tmp_path / "good.anything").write_bytes(GOOD)
    assert read_video(tmp_path / "good.anything") == GOOD
    assert is_video(tmp_path / "good.anything")
    for name, words in {"cut.cotamv": "cut.cotamv: The video is truncated", "none": "does not exist"}.items():
        with pytest.raises(CotamError, match=words):
            read_video(tmp_path / name)
    with pytest.raises(CotamError, match=r"is a folder, not a \.cotamv file"):
        read_video(tmp_path)
    with pytest.raises(CotamError, match="This is a video"):
        container.unpack(GOOD)
    assert GOOD.startswith(MAGIC)
