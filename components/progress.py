"""A progress bar on a terminal; four plain lines in a log file."""

import sys
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

Item = TypeVar("Item")


def track(iterable: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Yield from `iterable` and say on stderr how far it is.

    Args:
        iterable: what to go through.
        description: a few words, such as "Encoding".
        total: how many items there are, where `iterable` has no length.
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track as bar

        yield from bar(iterable, description, total=total, console=Console(stderr=True), transient=True)
    else:
        yield from _lines(iterable, description, total)


def _lines(iterable: Iterable[Item], description: str, total: int | None) -> Iterator[Item]:
    quarter = 0
    for done, item in enumerate(iterable, 1):
        yield item
        if total and done * 4 // total > quarter:
            quarter = done * 4 // total
            print(f"{description}: {done} of {total}", file=sys.stderr, flush=True)
