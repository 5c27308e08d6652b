"""The file that a command writes: checked before the slow work, whole or absent afterwards."""

from pathlib import Path

from components.errors import CotamError
from components.files import atomic_write


def check_output(out: Path, source: Path) -> None:
    """Refuse an output that could not be written, or that is the file it is made from.

    Raises:
        CotamError: `out` is a folder, or is `source` under whatever name.
    """
    if out.is_dir():
        raise CotamError(f"{out} is a folder; name the file to write with -o, such as -o {out / source.name}.")
    if out.exists() and source.exists() and out.samefile(source):
        raise CotamError(f"{out} is the file to read; name another one with -o.")


def write_output(out: Path, content: bytes) -> None:
    """Write `content`; what `out` held before stays if that fails.

    Raises:
        CotamError: the disk is full, the folder may not be written to, ...
    """
    try:
        atomic_write(out, content)
    except OSError as error:
        reason = error.strerror or error
        raise CotamError(f"{out} cannot be written ({reason}); free some room or choose another place.") from None
