"""A folder whose tables hold pictures, too: .parquet files, as the Hugging Face Hub has them or img2dataset makes them.

Shards take pictures in an order of their own, but a table gives many rows at once and in its own order. So each table
is unpacked from its first row to its last into one file, in which every picture has a place.
"""

import hashlib
import io
import json
import re
import shutil
import stat
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

import numpy as np

from components.data.held import only_run
from components.data.sources import FolderSource, Item, Listing, Source, open_source
from components.errors import CotamError
from components.files import atomic_dir
from components.progress import track

if TYPE_CHECKING:
    import pyarrow as pa  # at run time only where there is a table

SUFFIX = ".parquet"
NAMES = ("image", "image_bytes", "jpg", "png", "webp")
"""What a column of mere bytes is called if it holds images (by img2dataset, after their format)."""
ROWS = 16  # in memory at a time: photographs may have 20 MB each
BUFFER = 1 << 20  # bytes; without one, a whole group of rows is read at once, and a table may be one group
OUTSIDE = "pictures outside their table"
_PICTURES, _PLACES = "pictures", "places.npy"


def open_with_tables(source: str | Path, unpacked: Path, without: Path | None = None) -> Source:
    """The source that a person names, with the tables in it if it is a folder.

    Args:
        source, without: see `open_source`.
        unpacked: the folder for the pictures of the tables, to be removed by whoever calls this after the last read.
    """
    if "://" in str(source):
        return open_source(source, without)
    return ParquetSource(Path(source).expanduser(), unpacked, without)


@dataclass(frozen=True, slots=True)
class _Table:
    """A file, its name in the source, what changes with its content, all its columns, and those that hold images."""

    path: Path
    name: str
    stamp: str
    columns: tuple[str, ...]
    images: tuple[str, ...]

    @property
    def key(self) -> str:
        """The name of what is unpacked from it: another one after a change."""
        return hashlib.sha256(f"{self.name}\0{self.stamp}".encode(errors="surrogateescape")).hexdigest()[:16]


class ParquetSource(FolderSource):
    """A folder of pictures, of tars of pictures, and of tables of pictures.

    A table's pictures are named TABLE/ROW, then /COLUMN if several hold images, and /NUMBER if a row has a list of
    them. Several processes may share `unpacked`: one unpacks, and the others wait for it.
    """

    def __init__(self, folder: Path, unpacked: Path, without: Path | None = None):
        super().__init__(folder, without)
        self.unpacked = unpacked

    def list(self) -> Listing:
        """See `Source`; the first time, unpacks the tables.

        Raises:
            CotamError: also if a table cannot be read, if there is no room for its pictures, or if all there is are
                tables without a column of images.
        """
        listing = super().list()
        if SUFFIX not in listing.ignored:
            return listing
        tables = sorted(self._tables(), key=lambda table: table.name)
        with_images = [table for table in tables if table.images]
        if tables and not with_images and not listing.items:
            raise CotamError(
                f"{tables[0].path} has no column of images ({shorten(', '.join(tables[0].columns), 200)}): one has the "
                f"type Image of the Hugging Face Hub, or holds bytes and is called {', '.join(NAMES)}."
            )
        _unpack_all(with_images, self.unpacked)
        ignored = Counter(listing.ignored)
        ignored["not a file"] += ignored[SUFFIX] - len(tables)
        ignored[SUFFIX] = len(tables) - len(with_images)  # img2dataset puts one with captions beside every tar
        items = [*listing.items]
        for table in with_images:
            inside, outside = _items(table, self.unpacked / table.key)
            items += inside
            ignored[OUTSIDE] += outside
        return Listing(sorted(items, key=lambda item: item.name), dict(sorted((+ignored).items())))

    def _tables(self) -> Iterator[_Table]:
        from pyarrow.parquet import read_schema

        for path in self._files():
            if path.suffix.lower() != SUFFIX:
                continue
            with _readable(path):
                status = path.stat()
                if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
                    continue
                schema = read_schema(path)
                names = tuple(schema.names)
                images = _images(schema)
            stamp = f"{status.st_mtime_ns}:{status.st_size}"
            yield _Table(path, path.relative_to(self.folder).as_posix(), stamp, names, images)


def _images(schema: "pa.Schema") -> tuple[str, ...]:
    """The columns that hold images."""
    try:
        features = dict(json.loads(schema.metadata[b"huggingface"])["info"]["features"])
    except (KeyError, TypeError, ValueError):  # not written by `datasets`
        features = {}
    return tuple(
        field.name
        for field in schema
        if schema.names.count(field.name) == 1 and _is_image(field, json.dumps(features.get(field.name)))
    )


def _is_image(field: "pa.Field", feature: str) -> bool:
    """Whether a column holds images, or lists of them: by its type, its name, and what `datasets` says of it (JSON)."""
    import pyarrow as pa

    if set(re.findall(r'"_type": "(\w+)"', feature)) - {"Image", "List", "LargeList", "Sequence", "Value"}:
        return False  # sounds and videos are laid out alike
    kind = field.type.value_type if _is_list(field.type) else field.type
    named = field.name.lower() in NAMES
    if pa.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        named, kind = place >= 0, kind.field(place).type if place >= 0 else kind
    return named and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _is_list(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _unpack_all(tables: list[_Table], folder: Path) -> None:
    """Put the pictures of each table into `folder`/`key`, where they may be already; all else there is removed."""
    with only_run(folder, folder, wait=True):
        kept = {"lock", *(table.key for table in tables)}
        for path in folder.iterdir():  # of older tables, and of runs that were killed
            if path.name not in kept:
                shutil.rmtree(path)
        missing = [table for table in tables if not (folder / table.key).is_dir()]
        for table in track(missing, "Unpacking tables"):
            try:
                with atomic_dir(folder / table.key) as temporary:
                    _unpack(table, temporary)
            except OSError as error:
                raise CotamError(
                    f"{table.path} cannot be unpacked into {folder} ({error.strerror}); see that there is "
                    "room for its pictures, and run the same again."
                ) from None


def _unpack(table: _Table, folder: Path) -> None:
    """Write all pictures into one file, and where they are into int64 (N, 5).

    Its columns: row, which of `images`, number in a list or -1, offset, and size, which is -1 for one that is outside.
    """
    places = array("q")
    with open(folder / _PICTURES, "wb") as file:
        for row, column, number, content in _pictures(table):
            places.extend((row, column, number, file.tell(), -1 if content is None else content.size))
            if content is not None:
                file.write(content)
    saved = io.BytesIO()  # to a full disk, NumPy raises an OSError that does not say so
    np.save(saved, np.frombuffer(places, dtype=np.int64).reshape(-1, 5), allow_pickle=False)
    (folder / _PLACES).write_bytes(saved.getbuffer())


def _pictures(table: _Table) -> Iterator[tuple[int, int, int, "pa.Buffer | None"]]:
    """Of each picture its row, which of `images`, its number in a list or -1, and its bytes, or None if outside."""
    from pyarrow.parquet import ParquetFile

    options = {"buffer_size": BUFFER, "pre_buffer": False, "page_checksum_verification": True}
    with _readable(table.path), ParquetFile(table.path, **options) as file:
        first = 0
        for batch in file.iter_batches(ROWS, columns=table.images):
            for column, name in enumerate(table.images):
                for row, number, content in _cells(batch.column(name)):
                    yield first + row, column, number, content
            first += batch.num_rows


def _cells(column: "pa.Array") -> Iterator[tuple[int, int, "pa.Buffer | None"]]:
    """Of each picture in some rows of a column its row, its number in a list or -1, and its bytes."""
    import pyarrow as pa

    for row, cell in enumerate(column):
        if not cell.is_valid:
            continue
        for number, picture in enumerate(cell.values) if _is_list(column.type) else [(-1, cell)]:
            if not picture.is_valid:
                continue
            content = picture["bytes"] if pa.types.is_struct(picture.type) else picture
            if content.is_valid:
                yield row, number, content.as_buffer()
            elif content is not picture and "path" in picture and picture["path"].as_py():
                yield row, number, None


def _items(table: _Table, folder: Path) -> tuple[list[Item], int]:
    """The pictures that were unpacked into `folder`, and how many are not in the table."""
    items, outside = [], 0
    for row, column, number, offset, size in np.load(folder / _PLACES, allow_pickle=False).tolist():
        if size < 0:
            outside += 1
            continue
        name = f"{table.name}/{row:09d}"
        name += f"/{table.images[column]}" if len(table.images) > 1 else ""
        name += f"/{number}" if number >= 0 else ""
        items.append(Item(name, size, table.stamp, (folder / _PICTURES, offset)))
    return items, outside


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what is raised while `path` is read into one sentence."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        if "encrypted" in reason or "decrypt" in reason:
            raise CotamError(f"{path} is encrypted; store it without encryption first.") from None
        raise CotamError(f"{path} is damaged or cannot be read ({reason}); fetch it again.") from None
