"""Pictures out of shards by number, for training.

A picture is found by its offset in a tar file, so that it costs one read wherever it lies, and the order of an epoch is
a pure function of (seed, epoch): a training that resumes in the middle sees exactly what it would have seen.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from components.data.images import UnusableImageError, decode
from components.data.manifest import INDEX, MANIFEST, read_index, read_manifest
from components.errors import CotamError
from components.files import sha256

_ANY_SIZE = 2**62  # what is in a shard has passed the check of sizes


class ShardReader:
    """The pictures of a folder of shards.

    Every shard is hashed when a picture is first read from it: a damaged disk must not become a slightly different
    result. Reading is safe in threads and in forked workers, as no file stays open.
    """

    def __init__(self, folder: str | Path, seed: int = 0):
        """Open `folder`, which `cotam shard` or the step `shard` wrote.

        Args:
            folder: has manifest.json.
            seed: of `order`.

        Raises:
            CotamError: it holds no shards, or some are missing or cut short.
        """
        self.folder = Path(folder)
        self.seed = seed
        self.manifest = read_manifest(self.folder)
        self.fingerprint = sha256(self.folder / MANIFEST)
        """64 hex digits that name these pictures and their order on disk."""
        self._check(INDEX, self.manifest["index"]["sha256"])
        self._index = read_index(self.folder, self.manifest)
        self._checked: set[int] = set()

    def __len__(self) -> int:
        return len(self._index)

    def order(self, epoch: int) -> np.ndarray:
        """The numbers of all pictures in the order of this epoch: int64 (N,), a permutation of 0 ... N - 1."""
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, epoch])))
        return random.permutation(len(self))

    def image(self, index: int) -> Image.Image:
        """Picture number `index` on disk (0 <= index < N), as RGB.

        Raises:
            IndexError: there is no such picture.
            CotamError: its shard is not what was written.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} pictures, so no number {index}")
        shard, offset, size = (int(value) for value in self._index[index])
        entry = self.manifest["shards"][shard]
        if shard not in self._checked:
            self._check(entry["file"], entry["sha256"])
            self._checked.add(shard)
        with open(self.folder / entry["file"], "rb") as tar:
            tar.seek(offset)
            content = tar.read(size)
        try:
            return decode(content, _ANY_SIZE)[0]
        except UnusableImageError as error:
            raise CotamError(f"Picture {index} in {self.folder} {error}; shard the images again.") from None

    def images(self, epoch: int, start: int = 0) -> Iterator[Image.Image]:
        """The pictures of an epoch in its order, from place `start` on."""
        for index in self.order(epoch)[start:]:
            yield self.image(int(index))

    def verify(self) -> None:
        """Hash all shards now.

        Raises:
            CotamError: one is not what was written.
        """
        for number, entry in enumerate(self.manifest["shards"]):
            self._check(entry["file"], entry["sha256"])
            self._checked.add(number)

    def _check(self, name: str, expected: str) -> None:
        if sha256(self.folder / name) != expected:
            raise CotamError(
                f"{self.folder / name} is not what was written (its SHA-256 differs); restore it (`dvc pull`) or shard "
                "the images again."
            )
