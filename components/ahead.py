"""Work that threads do some places ahead of whoever needs it, given back in its order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    do: Callable[[Item], Result], items: Iterable[Item], *, threads: int = 1, ahead: int = 2
) -> Iterator[Result]:
    """Yield `do(item)` of each item in order, while threads are busy with those that follow.

    Args:
        do: called in a thread. What it raises is raised where its result would be.
        items: taken as they are needed, in the caller's thread.
        ahead: results that exist or are being made at most.
    """
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(do, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
