"""A table on disk that is filled once, row range by row range, and survives being killed at any moment.

Each column is a raw file of fixed-size rows; `filled.json` says up to which row all columns are good. Rows beyond it
are written again. Reading goes through memory maps, so that a table may be larger than memory.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.errors import CotamError
from components.files import read_json, write_json


@dataclass(frozen=True)
class Column:
    """What one row of a column holds."""

    shape: tuple[int, ...]
    dtype: str  # as numpy spells it: "float16", "uint8"

    @property
    def row_bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


class Table:
    """Columns of `rows` rows in `folder`; made empty, or found as far as it was filled."""

    def __init__(self, folder: Path, columns: dict[str, Column], rows: int):
        """Raises CotamError: an empty table would not fit on the disk once it is filled."""
        self.folder, self.columns, self.rows = folder, columns, rows
        self._progress = folder / "filled.json"
        folder.mkdir(parents=True, exist_ok=True)
        if not self._progress.exists():
            self._check_room()
            for name, column in columns.items():
                with open(self._path(name), "wb") as file:
                    file.truncate(rows * column.row_bytes)
            write_json(self._progress, 0)
        self.filled: int = read_json(self._progress)

    def rewind(self, rows: int) -> None:
        """Forget all rows from number `rows` on."""
        if rows > self.filled:
            raise ValueError(f"{self.folder} has only {self.filled} rows")
        self.filled = rows

    def append(self, values: dict[str, np.ndarray]) -> None:
        """Write the next rows: all columns, arrays (n, *shape), converted to the column's dtype."""
        counts = {len(value) for value in values.values()}
        if set(values) != set(self.columns) or len(counts) != 1:
            raise ValueError(f"a row needs all of {sorted(self.columns)}, equally many of each")
        for name, column in self.columns.items():
            value = np.ascontiguousarray(values[name], dtype=column.dtype)
            if value.shape[1:] != column.shape:
                raise ValueError(f"column {name} holds rows of shape {column.shape}, not {value.shape[1:]}")
            with open(self._path(name), "r+b") as file:
                file.seek(self.filled * column.row_bytes)
                file.write(value.tobytes())
                file.flush()
                os.fsync(file.fileno())  # before the progress does, or a power cut would leave rows of zeros
        self.filled += counts.pop()
        write_json(self._progress, self.filled)

    def __getitem__(self, name: str) -> np.ndarray:
        """A column as a read-only memory map (rows, *shape)."""
        column = self.columns[name]
        return np.memmap(self._path(name), column.dtype, "r", shape=(self.rows, *column.shape))

    def _check_room(self) -> None:
        """Said before hours of filling, not after."""
        needed = self.rows * sum(column.row_bytes for column in self.columns.values())
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise CotamError(
                f"{self.folder} needs {needed / 1e9:.1f} GB of which {free / 1e9:.1f} GB are free; make room, or see "
                "each image at fewer qualities (adapter.draws)."
            )

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.bin"
