"""How worker processes start: by fork while that is safe, from a clean process later."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from multiprocessing.context import BaseContext

from ..common import stores
from ..common.swept_directory import SweptDirectory

# The path of a socket has at most 103 bytes on some systems.
_LONGEST_DIRECTORY = 103 - len("/fcn-tmp-12345678/listener-12345678")
_sockets: SweptDirectory | None = None


def first(module: str) -> BaseContext:
    """Return how to start the first workers: by fork on Linux, as there is no CUDA and no thread yet.

    Only an object store has threads from the start, and a fork would hang; see `later` for `module`.
    """
    if stores.are_in_use():
        return later(module)
    _sweep_sockets()
    chosen = multiprocessing.get_start_method(allow_none=True)
    return multiprocessing.get_context(chosen or ("fork" if sys.platform == "linux" else None))


def later(module: str) -> BaseContext:
    """Return how to start later workers: from a clean process, as threads and perhaps CUDA exist by now.

    A process that they are forked from, where there is one, imports `module` once for all.
    """
    _sweep_sockets()
    chosen = multiprocessing.get_start_method(allow_none=True)
    if chosen in {None, "fork"} and "forkserver" in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([module])
        return context
    return multiprocessing.get_context(chosen)


def _sweep_sockets() -> None:
    """Let multiprocessing put its sockets, and memory where /dev/shm has no room, where the next run sweeps.

    It would make a directory ``pymp-…`` that stays when this process is killed, or ends by `os._exit`.
    """
    global _sockets
    if os.name != "posix":
        return
    configuration = getattr(multiprocessing.current_process(), "_config", {})
    if not os.path.isdir(configuration.get("tempdir") or ""):
        _sockets = SweptDirectory(None if len(tempfile.gettempdir()) < _LONGEST_DIRECTORY else "/tmp")  # noqa: S108
        configuration["tempdir"] = _sockets.path
