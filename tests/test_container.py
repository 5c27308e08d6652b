"""The header: written and read back, and every damage named before anything is decoded."""

import re
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.codec.container import (
    FREE_GRIDS,
    MAGIC,
    MAXIMUM_CELLS,
    MAXIMUM_PIXELS,
    VERSION,
    Header,
    check_size,
    header_bytes,
    pack,
    read_stream,
    seal,
    unpack,
)
from components.errors import CotamError
from components.paths import ROOT

sides = st.integers(1, 300) | st.integers(1, 10_000)
cells = st.integers(1, MAXIMUM_CELLS)
headers = st.builds(
    Header,
    model_id=st.binary(min_size=4, max_size=4).map(bytes.hex),
    width=sides,
    height=sides,
    quality=st.integers(0, 9),
    grid=st.sampled_from(FREE_GRIDS) | st.tuples(cells, cells) | cells.map(lambda n: (n, n)),
    check=st.integers(0, 2**32 - 1),
)
payloads = st.binary(min_size=8, max_size=64).map(lambda data: data[: len(data) // 4 * 4])


@given(headers, payloads)
def test_what_is_packed_is_unpacked(header, payload):
    stream = pack(header, payload, header.check)
    assert unpack(stream) == (header, payload)
    longest = max(header.width, header.height)
    size = 2 if longest <= 256 else 3 if longest <= 4096 else 4
    assert header_bytes(stream) == 12 + size + (0 if header.grid in FREE_GRIDS else 2)
    assert len(stream) == header_bytes(stream) + len(payload)


@given(headers.filter(lambda header: header.grid), payloads, st.integers(1, 3))
def test_the_version_says_how_far_the_levels_go(header, payload, steps):
    wide = replace(header, steps=steps)
    stream = pack(wide, payload, wide.check)
    assert stream[2] >> 4 == VERSION + steps - 1
    assert unpack(stream) == (wide, payload)
    assert len(stream) == len(pack(header, payload, header.check))
    if steps > 1:
        with pytest.raises(CotamError, match="no meaning"):
            unpack(pack(replace(wide, grid=None), payload, 0))


@pytest.mark.parametrize("size", [(1, 1), (256, 256), (336, 336), (768, 512), (4096, 4096), (8192, 8192), (65535, 1)])
@pytest.mark.parametrize("grid", [None, (4, 4), (8, 8)])
def test_a_usual_header_has_at_most_16_bytes(size, grid):
    stream = pack(Header("0a1b2c3d", *size, 9, grid), bytes(8), 0xFFFFFFFF)
    found, _ = unpack(stream)
    assert (found.width, found.height) == size
    assert header_bytes(stream) == 14 + (max(size) > 256) + (max(size) > 4096)


def test_the_layout_is_that_of_the_document():
    example = re.search(r"An example.\*\* `([0-9a-f ]+)`", (ROOT / "docs/bitstream.md").read_text()).group(1)
    assert pack(Header("0a1b2c3d", 640, 427, 4, (3, 5)), bytes(8), 0x11223344).hex(" ") == example + 8 * " 00"
    forms = {None: 0x00, (8, 8): 0x10, (4, 4): 0x20, (1, 255): 0x30}
    for grid, bits in forms.items():
        for side, size in ((256, 0x00), (257, 0x40), (4096, 0x40), (4097, 0x80)):
            assert pack(Header("0a1b2c3d", side, 1, 9, grid), bytes(8), 1)[3] & 0xF0 == bits | size


@given(headers, st.binary(max_size=20), st.binary(max_size=20))
def test_the_checksum_covers_every_field_and_what_was_decoded(header, first, second):
    check = header.checksum(first, second)
    stream = pack(header, bytes(8), check)
    bare = stream[:3] + bytes([stream[3] & 0xF0]) + stream[4:8] + stream[12 : header_bytes(stream)]
    assert check == zlib.crc32(bare + first + second)
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
    assert pack(found, rest, found.check) == cut  # nothing has two ways to be written


@given(headers, st.data())
def test_a_flipped_bit_in_a_header_is_seen_at_once(header, data):
    """One flipped bit always is, wherever it lies."""
    stream = bytearray(pack(header, bytes(8), header.check))
    bit = data.draw(st.integers(0, 8 * header_bytes(bytes(stream)) - 1))
    stream[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CotamError):
        unpack(bytes(stream))


GOOD = pack(Header("0a1b2c3d", 64, 48, 4, (3, 5)), bytes(12), 7)
LONG = seal(GOOD[:3] + b"\x40" + GOOD[4:12] + (63 | 47 << 12).to_bytes(3, "little")) + bytes(8)


def changed(offset, value, stream=GOOD):
    """Other bytes in a header, and its check made right again."""
    start = header_bytes(stream)
    return seal(stream[:offset] + value + stream[offset + len(value) : start]) + stream[start:]


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (b"", "not a .cotam stream"),
        (b"\xff\xd8\xff\xe0 a JPEG that is long enough", "not a .cotam stream"),
        (MAGIC, "truncated: not even its header"),
        (GOOD[:2], "truncated: not even its header"),
        (GOOD[:11], "truncated: not even its header"),
        (GOOD[:15], "truncated: not even its header"),
        (GOOD[:16], "truncated"),
        (GOOD[:23], "truncated"),
        (GOOD[:-1], "truncated"),
        (GOOD + b"\0", "truncated"),
        (b"\x89CTM\x01" + bytes(30), "version 1, this program reads 2; encode the image again"),
        (changed(2, b"\x54"), "version 5, this program reads 4; update the program"),
        (changed(2, b"\x2a"), "no meaning"),
        (changed(3, b"\xf0"), "no meaning"),  # size form 3
        (changed(14, b"\x00"), "no meaning"),  # no rows
        (changed(15, b"\x00"), "no meaning"),  # no columns
        (changed(14, b"\x08\x08"), "no meaning"),  # 8 x 8 has a form of its own
        (LONG, "no meaning"),  # a size in a longer form than it needs
        (GOOD[:12] + b"\x41" + GOOD[13:], "fails its check"),
        (pack(Header("0a1b2c3d", 65535, 65535, 4, None), bytes(8), 0), "more than 100000000 pixels"),
        (pack(Header("0a1b2c3d", 65536, 1, 4, None), bytes(8), 0), "no meaning"),
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
