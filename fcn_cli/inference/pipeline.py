"""The inference pipeline: upload, compute and download batches at the same time.

One thread takes batches as they come, stacks each into one of two buffers that are used in turn, and begins
its upload. The thread that iterates computes. On a GPU a third one waits for results. On a CPU, where the
network uses all of it, the first has little to do, and a lower priority.
"""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Generic, NamedTuple, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..common import resources
from ..common.errors import DeviceLost, Failure
from ..common.label_map import Segmentation
from ..common.ordered_work import OrderedWork, Task
from ..inputs.shared_pixels import Pixels
from . import device_errors
from .engine import Batch, Engine
from .transfers import CudaTransfers, Upload

POLL_SECONDS = 0.5
"""How often whoever iterates regains control while nothing is ready."""

MAX_BATCHES_AHEAD = 2
MAX_BYTES_AHEAD = 256 << 20
"""No further batch is taken while so many, or batches of so many bytes, wait for the network or are in it."""

_IN_FLIGHT_POLL_SECONDS = 0.005
_BUFFERS = 2
_MAX_KEPT_BYTES = 64 << 20
_NO_BOUND = 1 << 62

K = TypeVar("K")


class Prediction(NamedTuple, Generic[K]):
    """What came of an image, and the seconds that it took."""

    image: K
    result: Segmentation | Failure
    seconds: float


Item: TypeAlias = Batch[K] | Prediction[K] | None
"""What the pipeline takes: images for the network; what is known already; or that nothing is ready yet."""


def run_batches(
    engine: Engine,
    items: Generator[Item[K]],
    waiting: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
) -> Generator[list[Prediction[K]]]:
    """Run batches through an engine.

    What was computed before an error is yielded before the error is raised. Closing the generator drops what
    is not computed yet.

    Parameters
    ----------
    engine
        The network.
    items
        Batches, and predictions that pass through, in their place. Another thread takes and closes them.
    waiting
        Returns a context to be in while no batch is ready, for a clock.

    Yields
    ------
    list of Prediction
        One for each image of a batch, in order, with its share of the seconds that the network took for the
        batch; an empty list when nothing came for `POLL_SECONDS`.

    Raises
    ------
    DeviceLost
        The device cannot compute any more.
    """
    with _Feeder(engine, items) as feeder, _InFlight[K](engine) as in_flight:
        while True:
            try:
                with waiting():
                    fed = feeder.next(_IN_FLIGHT_POLL_SECONDS if in_flight else POLL_SECONDS)
                if isinstance(fed, _Fed):
                    try:
                        in_flight.add(fed)
                    finally:
                        feeder.done(fed)
            except Exception:
                # Unless the device is lost with it.
                with contextlib.suppress(DeviceLost):
                    yield from in_flight.finished(everything=True)
                raise
            if isinstance(fed, _End):
                break
            if fed is None and not in_flight:
                yield []
            yield from in_flight.finished()
        yield from in_flight.finished(everything=True)


class _Fed(NamedTuple, Generic[K]):
    """A batch, and its pixels as one tensor unless the engine has to take it as it is; or a prediction."""

    item: Batch[K] | Prediction[K]
    stacked: Tensor | Upload | None = None

    @property
    def nbytes(self) -> int:
        return self.item.nbytes if isinstance(self.item, Batch) else 0


class _End(NamedTuple):
    """There are no more batches, and why, if not because all came."""

    error: BaseException | None


class _Buffer:
    """Host memory that batches are stacked into, one after the other."""

    def __init__(self, transfers: CudaTransfers | None) -> None:
        self._transfers = transfers
        self._memory: Tensor | None = None
        self._upload: Upload | None = None

    def stack(self, pixels: Sequence[Pixels]) -> Tensor | Upload:
        """Stack images of one shape, once the upload before is complete; on a GPU begin their upload."""
        if self._upload is not None:
            self._upload.wait()
        shape = (len(pixels), *pixels[0].shape)
        memory = self._memory_of(math.prod(shape)).view(shape)
        np.stack(pixels, out=memory.numpy())
        if self._transfers is None:
            return memory
        self._upload = self._transfers.upload(memory)
        return self._upload

    def _memory_of(self, size: int) -> Tensor:
        make = _ordinary_buffer if self._transfers is None else self._transfers.make_buffer
        if size > _MAX_KEPT_BYTES:
            # Of the largest batches no two need be alike: their memory is not kept.
            return make(size)
        if self._memory is None or len(self._memory) < size:
            self._memory = make(size)
        return self._memory[:size]


def _ordinary_buffer(size: int) -> Tensor:
    return torch.empty(size, dtype=torch.uint8)


class _Feeder(Generic[K]):
    """Takes batches in a thread and stacks them, a bounded number ahead of who takes them with `next`.

    Leaving the context ends the thread, which closes `items`.
    """

    def __init__(self, engine: Engine, items: Generator[Item[K]]) -> None:
        self._engine = engine
        self._items = items
        self._ready: queue.SimpleQueue[_Fed[K] | _End] = queue.SimpleQueue()
        self._buffers = [_Buffer(engine.transfers) for _ in range(_BUFFERS)]
        self._stacked = 0
        # Guards what follows: what was fed and is not done.
        self._changed = threading.Condition()
        self._count = self._bytes = 0
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="fcn-feed", daemon=True)

    def __enter__(self) -> _Feeder[K]:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()

    def next(self, seconds: float) -> _Fed[K] | _End | None:
        """Return what comes next, or None when nothing is ready for so many seconds; raise what ended it."""
        try:
            fed = self._ready.get(timeout=seconds)
        except queue.Empty:
            return None
        if isinstance(fed, _End) and fed.error is not None:
            raise fed.error
        return fed

    def done(self, fed: _Fed[K]) -> None:
        """Say that the oldest thing that `next` returned is launched: its buffer may be used again."""
        with self._changed:
            self._count -= 1
            self._bytes -= fed.nbytes
            self._changed.notify_all()

    def _run(self) -> None:
        resources.lower_thread_priority()
        error: BaseException | None = None
        for step in (self._feed_all, self._items.close):
            try:
                step()
            except BaseException as raised:  # noqa: BLE001 - it is raised again where the batches are taken
                # What closing raises as well says less.
                error = raised if error is None else error
        self._ready.put(_End(error))

    def _feed_all(self) -> None:
        for item in self._items:
            if item is not None:
                self._feed(item)
            if not self._has_room():
                return

    def _feed(self, item: Batch[K] | Prediction[K]) -> None:
        with self._changed:
            self._count += 1
            self._bytes += _Fed(item).nbytes
        if isinstance(item, Batch) and self._engine.sees_whole(item):
            self._ready.put(_Fed(item, self._stack(item.pixels)))
        else:
            self._ready.put(_Fed(item))

    def _stack(self, pixels: Sequence[Pixels]) -> Tensor | Upload | None:
        """Stack pixels into the buffer whose turn it is; None where there is no memory for them at once."""
        # At most two batches are not done, this one included: the one before the last is.
        buffer = self._buffers[self._stacked % _BUFFERS]
        self._stacked += 1
        try:
            with device_errors.detect_lost_device(self._engine.device):
                return buffer.stack(pixels)
        except (RuntimeError, MemoryError) as error:
            if not device_errors.is_out_of_memory(error):
                raise
        # The engine takes them in smaller parts.
        return None

    def _has_room(self) -> bool:
        """Wait until there is room for one more batch; return False when the thread is to end."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopping or (self._count < MAX_BATCHES_AHEAD and self._bytes < MAX_BYTES_AHEAD)
            )
            return not self._stopping


class _Begun(NamedTuple, Generic[K]):
    images: Sequence[K]
    started: float


class _InFlight(Generic[K]):
    """What is launched and whose results are not taken."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._last = 0.0
        # On a GPU a batch is launched before the results of the one before are waited for.
        self._is_later = engine.transfers is not None
        self._work = OrderedWork[_Begun[K] | Prediction[K], Sequence[Segmentation | Failure]](
            1, "fcn-download", max_bytes=_NO_BOUND, max_count=int(self._is_later), low_priority=True
        )

    def __enter__(self) -> _InFlight[K]:
        return self

    def __exit__(self, *error: object) -> None:
        self._work.__exit__(*error)

    def __len__(self) -> int:
        return len(self._work)

    def add(self, fed: _Fed[K]) -> None:
        """Launch a batch; its buffer is free then."""
        batch, stacked = fed
        if isinstance(batch, Prediction):
            self._work.submit_result(batch, [batch.result])
            return
        begun = _Begun(batch.images, time.perf_counter())
        launched = self._engine.launch(batch, stacked)
        if self._is_later:
            self._work.submit(begun, partial(self._engine.collect, launched))
        else:
            self._work.submit_result(begun, self._engine.collect(launched))

    def finished(self, *, everything: bool = False) -> Iterator[list[Prediction[K]]]:
        """Yield the results that are there; wait for those beyond the bound, or for all."""
        for task in self._work.take(everything=everything):
            yield self._finish(task)

    def _finish(
        self, task: Task[_Begun[K] | Prediction[K], Sequence[Segmentation | Failure]]
    ) -> list[Prediction[K]]:
        if isinstance(task.key, Prediction):
            return [task.key]
        (images, started), results = task.key, task.future.result()
        now = time.perf_counter()
        # A batch that was launched beside the one before counts from the end of that one.
        seconds = (now - max(started, self._last)) / len(images)
        self._last = now
        return [Prediction(image, result, seconds) for image, result in zip(images, results, strict=True)]
