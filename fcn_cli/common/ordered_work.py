"""Work in threads whose results are taken in order, while only so much of it waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, NamedTuple, TypeVar

_MAX_COUNT = 64

K = TypeVar("K")
T = TypeVar("T")


class _Waiting(NamedTuple, Generic[K, T]):
    key: K
    future: Future[T]
    size: int


class OrderedWork(Generic[K, T]):
    """Runs functions in threads; gives each one's key and future to `take`, in the order of submission.

    Leaving the context takes all that is left; leaving it by an exception drops what has not begun.

    Parameters
    ----------
    threads
        How many threads.
    take
        Is called in the thread that submits.
    name
        Of the threads.
    max_bytes, max_count
        At most so much is submitted and not taken; something larger than `max_bytes` goes alone.
    """

    def __init__(
        self,
        threads: int,
        take: Callable[[K, Future[T]], None],
        name: str,
        *,
        max_bytes: int,
        max_count: int = _MAX_COUNT,
    ) -> None:
        self._take = take
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._waiting: deque[_Waiting[K, T]] = deque()
        self._size = 0
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)

    def __enter__(self) -> OrderedWork[K, T]:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            while self._waiting and kind is None:
                self._take_oldest()
        finally:
            self._threads.shutdown(cancel_futures=True)

    def submit(self, key: K, work: Callable[[], T], size: int = 0) -> None:
        """Run `work`, which holds `size` bytes; first take older results until there is room for it."""
        while self._waiting and (
            len(self._waiting) >= self._max_count or self._size + size > self._max_bytes
        ):
            self._take_oldest()
        self._waiting.append(_Waiting(key, self._threads.submit(work), size))
        self._size += size
        while self._waiting and self._waiting[0].future.done():
            self._take_oldest()

    def _take_oldest(self) -> None:
        key, future, size = self._waiting.popleft()
        self._size -= size
        self._take(key, future)
