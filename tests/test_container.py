"""The header: written and read back, and every damage named before anything is decoded."""

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.codec.container import (
    HEADER_BYTES,
    MAGIC,
    MAXIMUM_CELLS,
    MAXIMUM_PIXELS,
    Header,
    check_size,
    header_bytes,
    pack,
    read_stream,
    unpack,
)
from components.errors import CotamError

sides = st.integers(1, 10_000)
cells = st.integers(1, MAXIMUM_CELLS)
headers = st.builds(
    Header,
    model_id=st.binary(min_size=4, max_size=4).map(bytes.hex),
    width=sides,
    height=sides,
    quality=st.integers(0, 9),
    grid=st.none() | st.tuples(cells, cells) | cells.map(lambda n: (n, n)),
    check=st.integers(0, 2**32 - 1),
)
payloads = st.binary(min_size=8, max_size=64).map(lambda data: data[: len(data) // 4 * 4])


@given(headers, payloads)
def test_what_is_packed_is_unpacked(header, payload):
    stream = pack(header, payload, header.check)
    assert unpack(stream) == (header, payload)
    square = header.grid is None or header.grid[0] == header.grid[1]
    assert header_bytes(stream) == HEADER_BYTES + (0 if square else 2)
    assert len(stream) == header_bytes(stream) + len(payload)


def test_the_layout_is_that_of_the_document():
    stream = pack(Header("0a1b2c3d", 640, 427, 4, (3, 5)), bytes(range(8)), 0x11223344)
    assert stream.hex(" ") == ("89 43 54 4d 01 0a 1b 2c 3d 80 02 ab 01 04 ff 44 33 22 11 03 05 00 01 02 03 04 05 06 07")
    assert pack(Header("0a1b2c3d", 640, 427, 4, (8, 8)), bytes(8), 1)[14:19].hex() == "0801000000"
    assert pack(Header("0a1b2c3d", 640, 427, 4, None), bytes(8), 1)[14:19].hex() == "0001000000"


@given(headers, st.binary(max_size=20), st.binary(max_size=20))
def test_the_checksum_covers_every_field_and_what_was_decoded(header, first, second):
    check = header.checksum(first, second)
    stream = pack(header, bytes(8), check)
    extra = stream[19 : len(stream) - 8]
    assert check == zlib.crc32(stream[:15] + extra + first + second)
    assert check != header.checksum(first, second + b"\0")


@given(headers, payloads, st.data())
def test_a_changed_stream_is_refused_or_read_with_other_fields(header, payload, data):
    """`unpack` never fails in any other way; a field that it cannot doubt is left to the checksum."""
    stream = bytearray(pack(header, payload, header.check))
    for _ in range(data.draw(st.integers(1, 3))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(stream)[: data.draw(st.integers(0, len(stream)))]
    try:
        found, rest = unpack(cut)
    except CotamError as error:
        assert "\n" not in str(error)
        return
    assert found.width * found.height <= MAXIMUM_PIXELS
    assert 0 <= found.quality <= 9
    assert len(rest) >= 8
    assert len(rest) % 4 == 0
    # What was read packs to the same bytes, but for a square map that is announced as one that is not.
    if found.grid is None or found.grid[0] != found.grid[1] or cut[14] != 255:
        assert pack(found, rest, found.check) == cut


GOOD = pack(Header("0a1b2c3d", 64, 48, 4, (3, 5)), bytes(12), 7)


def changed(offset, value, stream=GOOD):
    return stream[:offset] + value + stream[offset + len(value) :]


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (b"", "not a .cotam stream"),
        (b"\xff\xd8\xff\xe0 a JPEG that is long enough", "not a .cotam stream"),
        (MAGIC, "truncated: not even its header"),
        (GOOD[:18], "truncated: not even its header"),
        (GOOD[:19], "level map has no size"),
        (GOOD[:20], "level map has no size"),
        (GOOD[:21], "truncated"),
        (GOOD[:28], "truncated"),
        (GOOD[:-1], "truncated"),
        (GOOD + b"\0", "truncated"),
        (changed(4, b"\x02"), "version 2, this program reads version 1; update the program"),
        (changed(13, b"\x0a"), "names no quality"),
        (changed(9, b"\0\0"), "empty"),
        (changed(11, b"\0\0"), "empty"),
        (changed(9, struct.pack("<HH", 65535, 65535)), "more than 100000000 pixels"),
        (changed(19, b"\0\x05"), "level map has no size"),
        (changed(19, b"\x05\xff"), "level map has no size"),
    ],
)
def test_damage_is_one_sentence(stream, words):
    with pytest.raises(CotamError) as error:
        unpack(stream)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_sizes():
    check_size(1, 1)
    check_size(65535, 1)
    check_size(10_000, 10_000)
    for size, words in {(0, 5): "empty", (65536, 1): "at most 65535", (10_001, 10_000): "more than"}.items():
        with pytest.raises(CotamError, match=words):
            check_size(*size)
    with pytest.raises(CotamError, match="more than 99 pixels"):
        check_size(10, 10, 99)
    with pytest.raises(CotamError, match="more than 99 pixels"):
        unpack(GOOD, maximum_pixels=99)


@pytest.mark.parametrize(
    ("height", "width", "latent"), [(1, 1, (1, 1)), (16, 17, (1, 2)), (336, 336, (21, 21)), (427, 640, (27, 40))]
)
def test_the_latent_covers_the_image(height, width, latent):
    assert Header("00000000", width, height, 0, None).latent_size == latent


def test_files_are_read_whole_or_named(tmp_path):
    (tmp_path / "good.cotam").write_bytes(GOOD)
    assert read_stream(tmp_path / "good.cotam") == GOOD
    (tmp_path / "cut.cotam").write_bytes(GOOD[:-3])
    (tmp_path / "text.cotam").write_text("not a stream")
    mistakes = {
        "cut.cotam": "truncated",
        "text.cotam": "not a .cotam stream",
        "missing.cotam": "does not exist",
        ".": "is a folder",
    }
    for name, words in mistakes.items():
        path = tmp_path / name
        with pytest.raises(CotamError, match=words) as error:
            read_stream(path)
        assert str(path) in str(error.value)
