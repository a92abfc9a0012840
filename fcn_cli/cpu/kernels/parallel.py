"""Run a compiled function on all of torch's threads."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

_RunOnThreads = Callable[[int, int, int, int], object]
"""Calls a function (its address) with a task (its address) on a number of threads and waits for all; the last
argument is a flag of OpenMP's."""


def run(function: int, task: int, items: int) -> None:
    """Call a function (its address) with a task (its address), on as many threads as are set and needed."""
    count = torch.get_num_threads()
    run_on_threads = _openmp() or _pool(count)
    run_on_threads(function, task, min(count, items), 0)


@functools.lru_cache(maxsize=1)
def _openmp() -> _RunOnThreads | None:
    """Return the entry point of the GNU OpenMP library that torch uses, or None.

    Torch's own threads must do the work: they spin while they wait, and other threads would compete with
    them.
    """
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        # The look-up includes a library's dependencies, so this finds torch's own OpenMP and no other.
        parallel = ctypes.CDLL(str(library)).GOMP_parallel
    except (OSError, AttributeError):
        return None
    parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    parallel.restype = None
    entry: _RunOnThreads = parallel
    return entry


@functools.lru_cache(maxsize=1)
def _pool(count: int) -> _RunOnThreads:
    """Return the same on threads of our own, which run in parallel: the call releases Python's lock."""
    pool = ThreadPoolExecutor(max_workers=count)

    def call(function: int, task: int, threads: int, _flags: int) -> None:
        entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(function)
        for future in [pool.submit(entry, task) for _ in range(threads)]:
            future.result()

    return call
