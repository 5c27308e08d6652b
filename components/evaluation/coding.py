"""One way to encode and decode pictures for all compared methods: the codec with and without guidance, JPEG, WebP."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from components.baselines import conventional
from components.codec.container import HEADER_BYTES
from components.evaluation.pictures import Pictures
from components.evaluation.streams import COTAM, JPEG, WEBP, Files, Setting

if TYPE_CHECKING:
    from components.codec import Codec, Decoded, Guidance

PORTION = 25  # pictures that go through the codec together; part of the result, as batched sums differ


class Coder:
    """The methods of one codec. `guidance` is needed to encode as `cotam`, and for nothing else."""

    def __init__(self, codec: "Codec", guidance: "Guidance | None" = None):
        self.codec = codec
        self.guidance = guidance

    def encode(self, setting: Setting, pictures: Pictures) -> Files:
        """A file per picture."""
        quality = int(setting.quality)
        if setting.method in (JPEG, WEBP):
            write = conventional.jpeg_encode if setting.method == JPEG else conventional.webp_encode
            return {name: write(picture, quality) for name, picture in pictures.items()}
        guidance = self.guidance if setting.method == COTAM else None
        files: Files = {}
        for names in portions(pictures):
            streams = self.codec.encode([pictures[name] for name in names], quality, guidance)
            files |= zip(names, streams, strict=True)
        return files

    def decode(self, files: Files) -> "dict[str, Decoded]":
        """What the codec makes of its files."""
        decoded: dict[str, Decoded] = {}
        for names in portions(files):
            decoded |= zip(names, self.codec.decode([files[name] for name in names]), strict=True)
        return decoded

    def pictures(self, setting: Setting, files: Files) -> Pictures:
        """What a person would see of the files."""
        if setting.method in (JPEG, WEBP):
            return {name: conventional.decode(content) for name, content in files.items()}
        return {name: decoded.image for name, decoded in self.decode(files).items()}


def header_bits(setting: Setting, content: bytes) -> int:
    """Bits of a file that are no coded pixels."""
    if setting.method in (JPEG, WEBP):
        return 8 * conventional.header_bytes(content)
    return 8 * HEADER_BYTES


def portions(names: Pictures | Files) -> Iterator[list[str]]:
    """Names in groups of at most `PORTION`; pictures of another size start a new group."""
    ordered = list(names)
    for start in range(0, len(ordered), PORTION):
        yield ordered[start : start + PORTION]
