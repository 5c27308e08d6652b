"""Pictures of a source as they go into shards: checked, and plain RGB as JPEG or PNG, or skipped with the reason."""

import io
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from PIL import Image

from components.ahead import in_order
from components.data.images import FORMATS, UnusableImageError, decode
from components.data.sources import Item, Source

READERS = 8  # threads; a picture from S3 takes longer to arrive than to check
AHEAD = 4 * READERS  # pictures in memory at most,
AHEAD_BYTES = 1 << 28  # and their files' bytes
LARGE = 16_000_000  # pixels: of pictures with more one is decoded at a time, or eight of the maximum would fill memory
_one_large = threading.Lock()


@dataclass(frozen=True)
class Rules:
    """What goes into shards, and in which order (see `shard_folder`). Part of the manifest."""

    seed: int
    shard_images: int
    minimum_side: int
    maximum_pixels: int


@dataclass(frozen=True)
class Picture:
    """A picture that is taken.

    Attributes:
        content: the bytes of its file.
        kind: `jpg` or `png`.
        about: what NUMBER.json says.
    """

    content: bytes
    kind: str
    about: dict[str, Any]


def prepare_all(source: Source, items: list[Item], rules: Rules) -> Iterator[Picture | dict[str, str]]:
    """Read and check pictures some places ahead, in several threads.

    Yields:
        In the order of `items`, the picture, or the `name` and the `reason` of one that is skipped.

    Raises:
        CotamError: the source itself failed.
    """
    return in_order(
        lambda item: _prepare(source, item, rules),
        items,
        threads=READERS,
        ahead=AHEAD,
        weigh=lambda item: item.size,
        heaviest=AHEAD_BYTES,
    )


def _prepare(source: Source, item: Item, rules: Rules) -> Picture | dict[str, str]:
    """A picture as it goes into a shard, or which one is skipped and why."""
    name = item.name.encode(errors="surrogateescape").decode(errors="replace")  # JSON holds only Unicode
    try:
        content = source.read(item)
        with _one_large if _pixels(content) > LARGE else nullcontext():
            return _as_packed(name, content, rules)
    except UnusableImageError as error:
        return {"name": name, "reason": str(error)}


def _as_packed(name: str, content: bytes, rules: Rules) -> Picture:
    """Raises UnusableImageError: it is not to be used."""
    image, kind = decode(content, rules.maximum_pixels)
    if min(image.size) < rules.minimum_side:
        raise UnusableImageError(
            f"is {image.width} x {image.height} pixels, smaller than the minimum side of {rules.minimum_side}"
        )
    if kind is None:
        file = io.BytesIO()
        image.save(file, "PNG", compress_level=1)  # a quarter larger than the default, in a third of the time
        content, kind = file.getvalue(), "png"
    return Picture(content, kind, {"name": name, "width": image.width, "height": image.height})


def _pixels(content: bytes) -> int:
    """What a file's head promises; 0 where it cannot be read, of which `decode` says why."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return image.width * image.height
    except Exception:  # decoders of damaged files raise anything
        return 0
