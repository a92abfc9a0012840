"""Processes that decode images: how they start, what memory they may take, and calls in one of them.

`DecodePool` has workers of its own, for streams of images. Whatever else decodes an image of a user
(overlays, cutouts, reports, exports) does so by `call`.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

from ..common import resources, stores
from ..common.errors import Failure, FailureKind, ImageError
from ..common.processes import end_with_parent
from ..common.signals import ENDING_SIGNALS
from ..common.swept_directory import SweptDirectory

DECODE_BYTES = 512 << 20
DECODE_BYTES_PER_PIXEL = 32
"""The memory limit of a decoding process: a fixed part, and a part per pixel of the largest allowed image.
The most that was measured is 25 bytes per pixel, for JPEG 2000 with alpha."""

LEAST_BYTES = 256 << 20
"""The least that each may take however many there are: with less, images from phones cannot be decoded."""

_SHARE = 0.75
"""So much of the memory that is available is for decoding."""

PROCESS_NAME = "fcn-decoder"
"""Of a process that answers calls."""

_MAX_PROCESSES = 16
_POLL_SECONDS = 0.5
# The path of a socket has at most 103 bytes on some systems.
_LONGEST_DIRECTORY = 103 - len("/fcn-tmp-12345678/listener-12345678")

_preloaded = [f"{__package__}.decoder"]
_sockets: SweptDirectory | None = None


def first() -> BaseContext:
    """Return how to start the first workers: by fork on Linux, as there is no CUDA and no thread yet.

    Only an object store has threads from the start, and a fork would hang; see `later`.
    """
    if stores.are_in_use():
        return later()
    _sweep_sockets()
    chosen = multiprocessing.get_start_method(allow_none=True)
    return multiprocessing.get_context(chosen or ("fork" if sys.platform == "linux" else None))


def later() -> BaseContext:
    """Return how to start later workers: from a clean process, as threads and perhaps CUDA exist by now.

    The process that they are forked from, where there is one, has imported what they need.
    """
    _sweep_sockets()
    chosen = multiprocessing.get_start_method(allow_none=True)
    if chosen in {None, "fork"} and "forkserver" in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_preloaded)
        return context
    return multiprocessing.get_context(chosen)


def preload(module: str) -> None:
    """Let the process that later workers are forked from import a module; only before there are such."""
    if module not in _preloaded:
        _preloaded.append(module)


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


def most_bytes(max_pixels: int, processes: int) -> int:
    """Return how much memory each of several processes may take for images of at most so many pixels.

    That is what the largest image needs, but no more than its share of what is available now.
    """
    needed = DECODE_BYTES + DECODE_BYTES_PER_PIXEL * max_pixels
    available = resources.available_memory()
    if available is None:
        return needed
    return min(needed, max(LEAST_BYTES, int(_SHARE * available) // processes))


def become_worker() -> None:
    """Make this process a worker: it ends with its parent, heeds no signals and prints nothing."""
    # The parent decides when work ends, but Ctrl-C and a service manager's signals reach the whole group.
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
    end_with_parent()
    # Discard what native decoders print: stdout belongs to the parent's reader.
    null_device = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null_device, descriptor)


def death_of(process: BaseProcess) -> Failure:
    """Return the failure of the image that a process held when it ended."""
    code = process.exitcode
    how = f"exit code {code}"
    if code is not None and code < 0:
        how = f"signal {-code}"
        with contextlib.suppress(ValueError):
            how = signal.Signals(-code).name
    return Failure(FailureKind.DECODER_DIED, f"the decoder crashed ({how}); the file may be damaged")


def hung(what: str, seconds: float) -> Failure:
    """Return the failure of an image for which `what` took too long."""
    return Failure(FailureKind.DECODER_HUNG, f"{what} did not finish within {seconds:g} s", seconds)


def out_of_memory() -> Failure:
    """Return the failure of an image that takes more memory than its process may."""
    return Failure(FailureKind.OUT_OF_MEMORY, "not enough memory to decode it")


Answer = Callable[..., Iterator[Any]]


def call(function: Answer, *arguments: object, max_pixels: int, seconds: float) -> Iterator[Any]:
    """Yield what a function yields in a process of its own; for any thread.

    What the process may take follows from `max_pixels`; each value may take `seconds`. Raises ImageError when
    the function does, takes too much memory or too long, or its process dies.
    """
    with _processes.slots:
        limit = most_bytes(max_pixels, _processes.count)
        process = _processes.take()
        try:
            yield from process.answers(function, arguments, limit, seconds)
        finally:
            _processes.give_back(process)


class _Process:
    """A process that answers one call after the other."""

    def __init__(self) -> None:
        context = later()
        self._connection, other = context.Pipe()
        self._process: BaseProcess = context.Process(  # type: ignore[attr-defined]
            target=_serve, args=(other,), name=PROCESS_NAME, daemon=True
        )
        self._process.start()
        other.close()
        self._is_busy = False

    @property
    def is_ready(self) -> bool:
        return not self._is_busy and self._process.is_alive()

    def answers(
        self, function: Answer, arguments: tuple[object, ...], limit: int, seconds: float
    ) -> Iterator[Any]:
        self._is_busy, is_end, value = True, False, None
        try:
            self._connection.send((function, arguments, limit))
            while True:
                if not self._connection.poll(seconds):
                    raise ImageError.of(hung("the decoder", seconds))
                is_end, value = self._connection.recv()
                if is_end:
                    break
                yield value
        except (EOFError, OSError):
            self._process.join(_POLL_SECONDS)
            raise ImageError.of(death_of(self._process)) from None
        self._is_busy = False
        if value is not None:
            raise ImageError.of(value)

    def kill(self) -> None:
        self._process.kill()
        self._connection.close()


class _Processes:
    """The processes that answer calls: as many as there are CPUs, each started when one more is needed."""

    def __init__(self) -> None:
        self.count = min(resources.cpu_count(), _MAX_PROCESSES)
        self.slots = threading.BoundedSemaphore(self.count)
        self._starting = threading.Lock()
        self._all: list[_Process] = []
        self._idle: list[_Process] = []

    def take(self) -> _Process:
        with self._starting:
            while self._idle:
                process = self._idle.pop()
                if process.is_ready:
                    return process
                self._drop(process)
            process = _Process()
            self._all.append(process)
            return process

    def give_back(self, process: _Process) -> None:
        with self._starting:
            if process.is_ready:
                self._idle.append(process)
            else:
                # It died, or is in the middle of something.
                self._drop(process)

    def _drop(self, process: _Process) -> None:
        process.kill()
        self._all.remove(process)

    def end(self) -> None:
        """Kill them all: they heed no other signal, and multiprocessing would wait for them."""
        for process in self._all:
            process.kill()


_processes = _Processes()
atexit.register(lambda: _processes.end())
if hasattr(os, "register_at_fork"):
    # A process that is forked has none of them.
    os.register_at_fork(after_in_child=_processes.__init__)  # type: ignore[misc]


def _serve(connection: Connection) -> None:
    """Answer calls until the parent ends."""
    become_worker()
    resources.lower_thread_priority()
    with contextlib.suppress(EOFError, OSError):
        while True:
            function, arguments, limit = connection.recv()
            resources.limit_memory(limit)
            failure: Failure | None = None
            try:
                for value in function(*arguments):
                    connection.send((False, value))
            except ImageError as error:
                failure = error.failure
            except MemoryError:
                failure = out_of_memory()
            connection.send((True, failure))
