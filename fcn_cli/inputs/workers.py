"""Decoding processes: how they start, their memory limit, and single calls in one of them.

`DecodePool` has workers of its own, for streams of images. Whatever else decodes an image of a user
(overlays, cutouts, reports, exports) does so by `call`; `start` lets its processes begin early.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

from PIL import Image

from ..common import resources, store_urls, stores
from ..common.errors import Failure, FailureKind, ImageError
from ..common.processes import end_with_parent
from ..common.signals import ENDING_SIGNALS
from ..common.swept_directory import SweptDirectory
from . import decoder, formats, resizing
from .decode_options import DEFAULT_MAX_PIXELS
from .samples import BY_THE_FILE, Rendering
from .shared_pixels import (
    Allocate,
    InFile,
    Pixels,
    ReceivedPixels,
    Shared,
    SharedMemory,
    WorkerPixels,
    most_shared_bytes,
)

DECODE_BYTES = 512 << 20
DECODE_BYTES_PER_PIXEL = 32
"""The memory limit of a decoding process: a fixed part, and a part per pixel of the largest allowed image.
The most that was measured is 25 bytes per pixel, for JPEG 2000 with alpha."""

LEAST_BYTES = 256 << 20
"""The least that each may take however many there are: with less, images from phones cannot be decoded."""

_SHARE = 0.75
"""So much of the memory that is available is for decoding."""

LONGEST_SECONDS = 600.0
"""How long decoding one image may take where no other limit is asked for."""

PROCESS_NAME = "fcn-decoder"
"""Of a process that answers calls."""

_MAX_PROCESSES = 16
# What each takes of this one's files: its pipes, its memory, and what its caller reads and writes.
_DESCRIPTORS = 8
_POLL_SECONDS = 0.5
# What each has for pixels, at most: they are taken out of it at once.
_SHARED_BYTES = 128 << 20
# How long what memory is available is known: to look takes half a millisecond.
_KNOWN_SECONDS = 1.0
# The path of a socket has at most 103 bytes on some systems.
_LONGEST_DIRECTORY = 103 - len("/fcn-tmp-12345678/listener-12345678")

_preloaded = [__name__]
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
        _start_tracker()
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_preloaded)
        return context
    return multiprocessing.get_context(chosen)


def _start_tracker() -> None:
    """Start the process that removes the semaphores of whoever is killed, and have it do so without a word.

    It must run before the clean process starts: its start unblocks the signals that `starting` blocks.
    """
    silent = "ignore::UserWarning:multiprocessing.resource_tracker"
    if silent not in sys.warnoptions:
        sys.warnoptions.append(silent)
    resource_tracker.ensure_running()


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
    return min(_needed_bytes(max_pixels), _share_bytes(processes))


def _needed_bytes(max_pixels: int) -> int:
    return DECODE_BYTES + DECODE_BYTES_PER_PIXEL * max_pixels


def _share_bytes(processes: int) -> int:
    available = resources.available_memory()
    return sys.maxsize if available is None else max(LEAST_BYTES, int(_SHARE * available) // processes)


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


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """Start processes in the context: no signal ends one before it has handlers of its own."""
    masked = hasattr(signal, "pthread_sigmask")
    if masked:
        # Processes inherit the mask of the thread that starts them.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
    try:
        yield
    finally:
        if masked:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)


class Shown(NamedTuple):
    """An upright image in sRGB, its (width, height) before it was made smaller, and its EXIF orientation."""

    image: Image.Image
    size: tuple[int, int]
    turn: int


def decode_for_people(
    path: str | os.PathLike[str],
    max_pixels: int = DEFAULT_MAX_PIXELS,
    rendering: Rendering = BY_THE_FILE,
    seconds: float = LONGEST_SECONDS,
    longest: int | None = None,
) -> Shown:
    """Decode an image file in sRGB, as people look at it and no network, in a process with bounds.

    Parameters
    ----------
    path, max_pixels, rendering
        See `decoder.decode_here`.
    seconds
        How long it may take.
    longest
        The most pixels of its long side: a larger image is made smaller.

    Raises
    ------
    ImageError
        The image cannot be decoded in these bounds; its `FailureKind` is the reason.
    """
    rendering = replace(rendering, for_people=True)
    arguments = _from_anywhere(path), max_pixels, rendering, longest
    (size, turn), pixels = call(_for_people, *arguments, max_pixels=max_pixels, seconds=seconds)
    assert pixels is not None  # noqa: S101 - as `_for_people` returns them
    try:
        return Shown(Image.fromarray(pixels), size, turn)
    except MemoryError:
        raise ImageError.of(formats.out_of_memory()) from None


def _for_people(
    path: str, max_pixels: int, rendering: Rendering, longest: int | None, allocate: Allocate
) -> tuple[tuple[tuple[int, int], int], Pixels]:
    """Return all of `Shown` but the image, and its pixels."""
    decoder.prepare_worker(max_pixels)
    decoded = decoder.decode_here(path, max_pixels, rendering)
    image = decoded.image if longest is None else resizing.within(decoded.image, longest)
    return (decoded.image.size, decoded.turn), resizing.pixels_of(image, allocate)


def measure(path: str | os.PathLike[str], max_pixels: int = DEFAULT_MAX_PIXELS) -> decoder.Measured:
    """Return an image's upright size and EXIF orientation, from its header if the format allows it.

    Raises
    ------
    ImageError
        As `decoder.decode_here`, as far as the header shows.
    """
    measured, _ = call(
        _measured, _from_anywhere(path), max_pixels, max_pixels=max_pixels, seconds=LONGEST_SECONDS
    )
    return decoder.Measured(*measured)


def _measured(path: str, max_pixels: int, _: Allocate) -> tuple[decoder.Measured, None]:
    decoder.prepare_worker(max_pixels)
    return decoder.measure_here(path, max_pixels), None


def _from_anywhere(path: str | os.PathLike[str]) -> str:
    """Return a path that is the same whatever the current directory of a process."""
    path = os.fspath(path)
    return path if store_urls.is_url(path) else os.path.join(os.getcwd(), path)


Answer = Callable[..., tuple[Any, Pixels | None]]
"""Takes its caller's arguments and an `Allocate`, which makes the array of the pixels that it returns."""


def call(function: Answer, *arguments: object, max_pixels: int, seconds: float) -> tuple[Any, Pixels | None]:
    """Return what a function returns in a process of its own, a value and pixels; for any thread.

    What the process may take follows from `max_pixels`. Raises ImageError when the function does, takes too
    much memory or more than `seconds`, or its process dies or cannot be started.
    """
    with _processes.slots:
        limit = _processes.most_bytes(max_pixels)
        try:
            process = _processes.lend()
        except OSError as error:
            reason = f"no process can be started to decode it ({error.strerror or error})"
            raise ImageError(FailureKind.DECODER_DIED, reason) from None
        try:
            return process.answer(function, arguments, limit, seconds)
        finally:
            _processes.give_back(process)


def start(calls: int) -> None:
    """Start the processes for so many calls while they can be forked from this one.

    Once it has threads or torch, they are forked from a clean one, which has to import what they need.
    """
    if threading.active_count() == 1 and sys.modules.get("torch") is None:
        with warnings.catch_warnings():
            # Of a fork beside the threads of libraries.
            warnings.simplefilter("ignore")
            with contextlib.suppress(OSError):
                # Whatever the system refuses now may be possible when there is a call.
                _processes.start(first(), calls)


class _Process:
    """A process that answers one call after the other, with memory for the pixels that it returns."""

    def __init__(self, context: BaseContext, shared_bytes: int, directory: str) -> None:
        shared = SharedMemory(context, 1, shared_bytes)
        self._pixels = ReceivedPixels(shared)
        self._connection, other = context.Pipe()
        self._process: BaseProcess = context.Process(  # type: ignore[attr-defined]
            target=_serve, args=(other, shared, directory), name=PROCESS_NAME, daemon=True
        )
        with starting():
            self._process.start()
        other.close()
        self._is_busy = False

    @property
    def is_ready(self) -> bool:
        return not self._is_busy and self._process.is_alive()

    def answer(
        self, function: Answer, arguments: tuple[object, ...], limit: int, seconds: float
    ) -> tuple[Any, Pixels | None]:
        self._is_busy = True
        try:
            self._connection.send((function, arguments, limit))
            if not self._connection.poll(seconds):
                raise ImageError.of(hung("the decoder", seconds))
            value, place, failure = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(_POLL_SECONDS)
            raise ImageError.of(death_of(self._process)) from None
        self._is_busy = False
        if failure is not None:
            raise ImageError.of(failure)
        return value, self._pixels.pixels(place) if isinstance(place, Shared | InFile) else place

    def kill(self) -> None:
        self._process.kill()
        self._connection.close()


class _Processes:
    """The processes that answer calls: as many as there are CPUs, each started when one more is needed."""

    def __init__(self) -> None:
        descriptors = resources.most_descriptors() // _DESCRIPTORS
        self._count = max(1, min(resources.cpu_count(), _MAX_PROCESSES, descriptors))
        self.slots = threading.BoundedSemaphore(self._count)
        self._starting = threading.Lock()
        self._all: list[_Process] = []
        self._idle: list[_Process] = []
        self._directory: SweptDirectory | None = None
        self._share = (-_KNOWN_SECONDS, 0)

    def most_bytes(self, max_pixels: int) -> int:
        """Return what one of them may take for images of at most so many pixels."""
        since, share = self._share
        if time.monotonic() - since > _KNOWN_SECONDS:
            share = _share_bytes(self._count)
            self._share = time.monotonic(), share
        return min(_needed_bytes(max_pixels), share)

    def start(self, context: BaseContext, calls: int) -> None:
        with self._starting:
            while len(self._all) < min(calls, self._count):
                self._idle.append(self._started(context))

    def lend(self) -> _Process:
        with self._starting:
            while self._idle:
                process = self._idle.pop()
                if process.is_ready:
                    return process
                self._drop(process)
            return self._started(later())

    def give_back(self, process: _Process) -> None:
        with self._starting:
            if process.is_ready:
                self._idle.append(process)
            else:
                # It died, or is in the middle of something.
                self._drop(process)

    def _started(self, context: BaseContext) -> _Process:
        self._directory = self._directory or SweptDirectory()
        shared_bytes = min(_SHARED_BYTES, most_shared_bytes() // self._count)
        process = _Process(context, shared_bytes, self._directory.path)
        self._all.append(process)
        return process

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


def _serve(connection: Connection, shared: SharedMemory, directory: str) -> None:
    """Answer calls until the parent ends."""
    become_worker()
    resources.lower_thread_priority()
    # What was there before the fork is never collected, and stays in memory that processes share.
    gc.freeze()
    made = WorkerPixels(shared, 0, directory, _SHARED_BYTES)
    known = 0
    with contextlib.suppress(EOFError, OSError):
        while True:
            function, arguments, limit = connection.recv()
            if limit != known:
                resources.limit_memory(limit)
                known = limit
            connection.send(_answer(function, arguments, made))


def _answer(
    function: Answer, arguments: tuple[object, ...], made: WorkerPixels
) -> tuple[Any, Pixels | Shared | InFile | None, Failure | None]:
    """Return a function's value, where its pixels are, and its failure."""
    try:
        value, pixels = function(*arguments, made.allocate)
        return value, None if pixels is None else made.pass_on(pixels), None
    except ImageError as error:
        return None, None, error.failure
    except MemoryError:
        return None, None, formats.out_of_memory()
    finally:
        made.take_back()
