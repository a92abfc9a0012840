"""How worker processes start: by fork while that is safe, from a clean process later."""

from __future__ import annotations

import multiprocessing
import sys
from multiprocessing.context import BaseContext

from ..common import store_drivers


def first(module: str) -> BaseContext:
    """Return how to start the first workers: by fork on Linux, as there is no CUDA and no thread yet.

    Only an object store has threads from the start, and a fork would hang; see `later` for `module`.
    """
    if store_drivers.are_in_use():
        return later(module)
    chosen = multiprocessing.get_start_method(allow_none=True)
    return multiprocessing.get_context(chosen or ("fork" if sys.platform == "linux" else None))


def later(module: str) -> BaseContext:
    """Return how to start later workers: from a clean process, as threads and perhaps CUDA exist by now.

    A process that they are forked from, where there is one, imports `module` once for all.
    """
    chosen = multiprocessing.get_start_method(allow_none=True)
    if chosen in {None, "fork"} and "forkserver" in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([module])
        return context
    return multiprocessing.get_context(chosen)
