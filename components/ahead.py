"""Work that threads do some places ahead of whoever needs it, given back in its order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    do: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    threads: int = 1,
    ahead: int = 2,
    weigh: Callable[[Item], float] = lambda item: 0,
    heaviest: float = 0,
) -> Iterator[Result]:
    """Yield `do(item)` of each item in order, while threads are busy with those that follow.

    Args:
        do: called in a thread. What it raises is raised where its result would be.
        items: taken as they are needed, in the caller's thread.
        ahead: results that exist or are being made at most,
        weigh, heaviest: and what their items may weigh together; one alone may weigh more.
    """
    pool = ThreadPoolExecutor(threads)
    waiting: deque[tuple[Future[Result], float]] = deque()
    try:
        for item in items:
            weight = weigh(item)
            while waiting and sum(one for _, one in waiting) + weight > heaviest:
                yield waiting.popleft()[0].result()
            waiting.append((pool.submit(do, item), weight))
            if len(waiting) >= ahead:
                yield waiting.popleft()[0].result()
        while waiting:
            yield waiting.popleft()[0].result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
