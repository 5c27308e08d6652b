"""The pictures that people have: every kind of file that sharding must cope with, made on the spot."""

import io
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

RED, BLUE = (220, 20, 30), (10, 40, 200)


def noise(seed: int, width: int = 48, height: int = 40) -> Image.Image:
    """A random RGB picture."""
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def halves(width: int = 64, height: int = 48) -> Image.Image:
    """Red above, blue below: shows which side is up."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (0, height // 2, width, height))
    return image


def file_bytes(image: Image.Image, kind: str, **options) -> bytes:
    """The picture as a file of Pillow's format `kind`."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def folder_of(path: Path, count: int, first: int = 0) -> Path:
    """A folder with `count` random PNG files, half of them in a folder below."""
    (path / "more").mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        noise(number).save(path / ("more" if number % 2 else "") / f"{number}.png")
    return path


def put_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> None:
    """A tar of members by name."""
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def png_of_16_bits(values: np.ndarray) -> bytes:
    """A PNG file of uint16 (H, W, C): grey, grey and alpha, RGB, RGBA. Pillow writes only the first."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width, channels = values.shape
    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff_of_16_bits(values: np.ndarray) -> bytes:
    """A TIFF file of uint16 (H, W, C): grey, RGB or RGBA."""
    height, width, channels = values.shape
    pixels = values.astype("<u2").tobytes()
    tags = [
        *[(256, "I", [width]), (257, "I", [height]), (258, "H", [16] * channels), (259, "H", [1])],
        *[(262, "H", [2 if channels >= 3 else 1]), (273, "I", [8]), (277, "H", [channels]), (278, "I", [height])],
        (279, "I", [len(pixels)]),
        *([(338, "H", [2])] if channels == 4 else []),  # the fourth is alpha, not premultiplied
    ]
    start = 8 + len(pixels)
    entries, beyond = b"", b""
    for tag, kind, numbers in tags:
        value = struct.pack(f"<{len(numbers)}{kind}", *numbers)
        if len(value) > 4:
            value, beyond = struct.pack("<I", start + 6 + 12 * len(tags) + len(beyond)), beyond + value
        entries += struct.pack("<HHI", tag, {"H": 3, "I": 4}[kind], len(numbers)) + value.ljust(4, b"\0")
    head = b"II*\0" + struct.pack("<I", start)
    return head + pixels + struct.pack("<H", len(tags)) + entries + bytes(4) + beyond
