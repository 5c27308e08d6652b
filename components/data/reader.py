"""Pictures out of shards by number, for training; the shards lie in a folder or on S3.

A picture is found by its offset in a tar file, so that it costs one read wherever it lies, and the order of an epoch is
a pure function of (seed, epoch): a training that resumes in the middle sees exactly what it would have seen.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from PIL import Image

from components.ahead import in_order
from components.data.images import UnusableImageError, decode
from components.data.linked_shards import LinkedShards
from components.data.local_shards import LocalShards, check_file
from components.data.manifest import INDEX, MANIFEST, is_link, read_index, read_manifest
from components.errors import CotamError
from components.files import sha256

_ANY_SIZE = 2**62  # what is in a shard has passed the check of sizes
RUN, RUN_BYTES = 32, 1 << 20  # neighbours that are asked for at once: a store's requests cost more than their bytes
AHEAD = 16  # runs that are read and decoded before they are wanted,
AHEAD_BYTES = 32 << 20  # and their files' bytes: eight photographs of 4 MB; their pixels nothing says beforehand


class ShardReader:
    """The pictures of a folder of shards, or of one that says where they lie.

    Nothing is given that is not what was written: local shards are hashed when a picture is first read from them,
    pictures from S3 one by one. Reading is safe in threads and in forked workers, as no file stays open.
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
        """64 hex digits that name these pictures and their order in the shards, wherever these lie."""
        check_file(self.folder / INDEX, self.manifest["index"]["sha256"])
        self._index = read_index(self.folder, self.manifest)
        self._shards: LocalShards | LinkedShards
        if is_link(self.folder):
            self._shards = LinkedShards(self.folder, self.manifest, self._index, self.fingerprint)
        else:
            self._shards = LocalShards(self.folder, self.manifest, self._index)

    def __len__(self) -> int:
        return len(self._index)

    def order(self, epoch: int) -> np.ndarray:
        """The numbers of all pictures in the order of this epoch: int64 (N,), a permutation of 0 ... N - 1."""
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, epoch])))
        return random.permutation(len(self))

    def image(self, index: int) -> Image.Image:
        """Picture number `index` in the shards (0 <= index < N), as RGB.

        Raises:
            IndexError: there is no such picture.
            CotamError: its shard is not what was written.
        """
        (run,) = self._runs([index])
        return self._read(run)[0]

    def read(self, numbers: Iterable[int]) -> Iterator[Image.Image]:
        """These pictures in this order, as `image` gives them, read and decoded by threads some places ahead.

        Neighbours that are wanted one after the other are read at once.
        """
        runs = in_order(
            self._read,
            self._runs(numbers),
            threads=self._shards.threads,
            ahead=AHEAD,
            weigh=self._bytes,
            heaviest=AHEAD_BYTES,
        )
        for run in runs:
            yield from run

    def images(self, epoch: int, start: int = 0) -> Iterator[Image.Image]:
        """The pictures of an epoch in its order, from place `start` on."""
        return self.read(self.order(epoch)[start:])

    def shard(self, number: int) -> AbstractContextManager[Path]:
        """A whole tar file that has been checked; of shards on S3 a copy, for as long as the block lasts.

        Raises:
            CotamError: it is not what was written.
        """
        return self._shards.shard(number)

    def verify(self) -> None:
        """Hash all shards now.

        Raises:
            CotamError: one is not what was written.
        """
        for number in range(len(self.manifest["shards"])):
            with self.shard(number):
                pass

    def _read(self, run: tuple[int, int]) -> list[Image.Image]:
        """`count` pictures from number `first` on."""
        first, count = run
        pictures = []
        for number, content in enumerate(self._shards.read(first, count), first):
            try:
                pictures.append(decode(content, _ANY_SIZE)[0])
            except UnusableImageError as error:
                raise CotamError(f"Picture {number} in {self.folder} {error}; shard the images again.") from None
        return pictures

    def _bytes(self, run: tuple[int, int]) -> int:
        """Of a run's files."""
        first, count = run
        return int(self._index[first : first + count, 2].sum())

    def _runs(self, numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
        """First number and length of each row of neighbours in one shard."""
        first, count, size = 0, 0, 0
        for number in map(int, numbers):
            if not 0 <= number < len(self):
                raise IndexError(f"there are {len(self)} pictures, so no number {number}")
            following, more = first + count, int(self._index[number, 2])
            joins = number == following and self._index[number, 0] == self._index[first, 0]
            if count and not (joins and count < RUN and size + more <= RUN_BYTES):
                yield first, count
                count = 0
            if not count:
                first, size = number, 0
            count, size = count + 1, size + more
        if count:
            yield first, count
