"""A thread pool whose results come in the order of submission, with a bounded backlog."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, NamedTuple, TypeVar

from . import resources

_MAX_COUNT = 64

K = TypeVar("K")
T = TypeVar("T")


class Task(NamedTuple, Generic[K, T]):
    """Work that was submitted: the submitter's key, the future result, and the bytes that it holds."""

    key: K
    future: Future[T]
    size: int


class OrderedWork(Generic[K, T]):
    """Runs functions in threads; tasks are taken in the order of submission.

    All methods belong to one thread. Leaving the context waits for running tasks and drops those that have
    not begun, so take all tasks before (``take(everything=True)``).

    Parameters
    ----------
    threads
        The number of threads.
    name
        The prefix of the threads' names.
    max_bytes, max_count
        The bounds on tasks that are submitted and not taken; one task larger than `max_bytes` may wait alone.
    low_priority
        Lower the threads' priority (see `resources.lower_thread_priority`).
    """

    def __init__(
        self,
        threads: int,
        name: str,
        *,
        max_bytes: int,
        max_count: int = _MAX_COUNT,
        low_priority: bool = False,
    ) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._waiting: deque[Task[K, T]] = deque()
        self._size = 0
        self._threads = ThreadPoolExecutor(
            threads,
            thread_name_prefix=name,
            initializer=resources.lower_thread_priority if low_priority else None,
        )

    def __enter__(self) -> OrderedWork[K, T]:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    def __len__(self) -> int:
        return len(self._waiting)

    def __getitem__(self, place: int) -> Task[K, T]:
        """Return the task in a place; 0 is the oldest one that is not taken."""
        return self._waiting[place]

    def __iter__(self) -> Iterator[Task[K, T]]:
        """Return the tasks that are not taken, the oldest first."""
        return iter(self._waiting)

    def submit(self, key: K, work: Callable[[], T], size: int = 0) -> Future[T]:
        """Run `work`, which holds `size` bytes, in a thread; then `take` to stay within the bounds."""
        return self._add(Task(key, self._threads.submit(work), size))

    def submit_result(self, key: K, result: T | BaseException) -> Future[T]:
        """Add a task that is done already: its result, or the exception that it ended with."""
        future: Future[T] = Future()
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)
        return self._add(Task(key, future, 0))

    def take(self, *, everything: bool = False) -> Iterator[Task[K, T]]:
        """Yield the oldest tasks that are done.

        Waits for a task that is not done while more waits than the bounds allow, or with `everything`. A task
        that was yielded is taken.
        """
        while self._waiting and (everything or self.is_over_bounds or self._waiting[0].future.done()):
            yield self.take_oldest()

    def take_oldest(self) -> Task[K, T]:
        """Remove the oldest task and return it when it is done."""
        task = self._waiting[0]
        # Its result is asked for later; an exception is not raised here.
        task.future.exception()
        self._waiting.popleft()
        self._size -= task.size
        return task

    def _add(self, task: Task[K, T]) -> Future[T]:
        self._waiting.append(task)
        self._size += task.size
        return task.future

    @property
    def is_over_bounds(self) -> bool:
        """Whether more tasks or bytes wait than the bounds allow, so that `take` waits."""
        count = len(self._waiting)
        return count > self._max_count or (self._size > self._max_bytes and count > 1)
