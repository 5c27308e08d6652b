"""What a command reads and writes, file or standard stream: checked before the slow work, whole or absent after it."""

import sys
from pathlib import Path

from components.errors import CotamError
from components.files import atomic_write

STANDARD = Path("-")
"""Instead of a file's name: standard input, or standard output."""
MAXIMUM_BYTES = 1 << 30


def read_standard() -> bytes:
    """All of standard input.

    Raises:
        CotamError: it is a terminal, or more than any file that can be used.
    """
    if sys.stdin.isatty():
        raise CotamError("Standard input is a terminal; pipe a file into it, or name one.")
    content = sys.stdin.buffer.read(MAXIMUM_BYTES + 1)
    if len(content) > MAXIMUM_BYTES:
        raise CotamError(f"Standard input has more than {MAXIMUM_BYTES >> 20} MiB; give a smaller file.")
    return content


def check_output(out: Path, source: Path) -> None:
    """Refuse an output that could not be written, or that is the file it is made from.

    Raises:
        CotamError: `out` is a folder, is `source` under whatever name, or is a terminal.
    """
    if out == STANDARD:
        if sys.stdout.isatty():
            raise CotamError("Standard output is a terminal; send it to a file or a program, or name a file with -o.")
        return
    if out.is_dir():
        example = out / (source.name if source != STANDARD else "NAME")
        raise CotamError(f"{out} is a folder; name the file to write with -o, such as -o {example}.")
    if source != STANDARD and out.exists() and source.exists() and out.samefile(source):
        raise CotamError(f"{out} is the file to read; name another one with -o.")


def write_output(out: Path, content: bytes) -> None:
    """Write `content`; what `out` held before stays if that fails.

    Raises:
        CotamError: the disk is full, the folder may not be written to, ...
    """
    if out == STANDARD:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    try:
        atomic_write(out, content)
    except OSError as error:
        reason = error.strerror or error
        raise CotamError(f"{out} cannot be written ({reason}); free some room or choose another place.") from None


def say(out: Path, text: str) -> None:
    """Print what was done: on standard output, or on standard error if that is where the file went."""
    print(text, file=sys.stderr if out == STANDARD else sys.stdout)
