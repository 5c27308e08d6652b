"""The pictures that people have: every kind of file that sharding must cope with, made on the spot."""

import io
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
