"""Takes batches in a thread of its own, stacks them into two buffers in turn, and begins their uploads."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from torch import Tensor

from ..common import resources
from . import device_errors
from .device import Device, Upload
from .device_network import Pixels
from .engine import Engine
from .launching import Sizes

MAX_BATCHES_AHEAD = 2
MAX_BYTES_AHEAD = 256 << 20
"""No further batch is taken while so many, or batches of so many bytes, wait for the network or are in it."""

_BUFFERS = 2
_MAX_KEPT_BYTES = 64 << 20

K = TypeVar("K")


@dataclass(frozen=True)
class Batch(Generic[K]):
    """Images of one shape: RGB, uint8; and what belongs to them, which comes back with the results.

    `sizes` is the (width, height) of each label map; `smaller` has each image at smaller sizes, or nothing.
    A batch without images passes through, in its place.
    """

    key: K
    pixels: Pixels = ()
    sizes: Sizes = ()
    smaller: Sequence[Pixels] = ()

    @property
    def nbytes(self) -> int:
        """The size of all pixels in bytes."""
        return sum(part.nbytes for part in self.pixels) + sum(part.nbytes for s in self.smaller for part in s)


class Prepared(NamedTuple, Generic[K]):
    """A batch, and its upload unless the engine has to take it as it is; no batch is the end."""

    batch: Batch[K] | None
    upload: Upload | None = None
    error: BaseException | None = None


class _Buffer:
    """Host memory that batches are stacked into, one after the other."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._memory: Tensor | None = None
        self._upload: Upload | None = None

    def upload(self, pixels: Pixels) -> Upload:
        """Stack images of one shape (h, w, 3), once the upload before is complete, and upload them."""
        if self._upload is not None:
            self._upload.wait()
        shape = (len(pixels), *pixels[0].shape)
        memory = self._memory_of(math.prod(shape)).view(shape)
        np.stack(pixels, out=memory.numpy())
        self._upload = self._device.upload(memory)
        return self._upload

    def _memory_of(self, size: int) -> Tensor:
        if size > _MAX_KEPT_BYTES:
            # Of the largest batches no two need be alike: their memory is not kept.
            return self._device.make_buffer(size)
        if self._memory is None or len(self._memory) < size:
            self._memory = self._device.make_buffer(size)
        return self._memory[:size]


class Feeder(Generic[K]):
    """Prepares batches in a thread, a bounded number ahead of who takes them with `next`.

    Leaving the context ends the thread, which closes `batches`.

    Parameters
    ----------
    engine
        The network that the batches are for.
    batches
        The batches; None says that none is ready for a moment.
    """

    def __init__(self, engine: Engine, batches: Generator[Batch[K] | None]) -> None:
        self._engine = engine
        self._batches = batches
        self._ready: queue.SimpleQueue[Prepared[K]] = queue.SimpleQueue()
        self._buffers = [_Buffer(engine.device) for _ in range(_BUFFERS)]
        # Guards what follows: the batches that were prepared and are not done, oldest first.
        self._changed = threading.Condition()
        self._count = self._bytes = self._prepared = 0
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="fcn-feed", daemon=True)

    def __enter__(self) -> Feeder[K]:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()

    def next(self, seconds: float) -> Prepared[K] | None:
        """Return the next batch, or None when none is ready for so many seconds.

        At the end of the batches raise what ended them, or return a `Prepared` without a batch.
        """
        try:
            prepared = self._ready.get(timeout=seconds)
        except queue.Empty:
            return None
        if prepared.error is not None:
            raise prepared.error
        return prepared

    def done(self, batch: Batch[K]) -> None:
        """Say that the oldest batch that `next` returned is launched: its buffer may be used again."""
        with self._changed:
            self._count -= 1
            self._bytes -= batch.nbytes
            self._changed.notify_all()

    def _run(self) -> None:
        resources.lower_thread_priority()
        error: BaseException | None = None
        try:
            for batch in self._batches:
                if batch is not None:
                    self._ready.put(self._prepare(batch))
                if not self._has_room():
                    break
        except BaseException as raised:  # noqa: BLE001 - it is raised again where the batches are taken
            error = raised
        finally:
            self._batches.close()
        self._ready.put(Prepared(None, None, error))

    def _prepare(self, batch: Batch[K]) -> Prepared[K]:
        with self._changed:
            self._count += 1
            self._bytes += batch.nbytes
        if not batch.pixels or not self._engine.sees_whole(batch.pixels[0], batch.smaller):
            return Prepared(batch)
        # At most two batches are not done, this one included: the one before the last is.
        buffer = self._buffers[self._prepared % _BUFFERS]
        self._prepared += 1
        try:
            with device_errors.detect_lost_device(self._engine.device.name):
                return Prepared(batch, buffer.upload(batch.pixels))
        except (RuntimeError, MemoryError) as error:
            if not device_errors.is_out_of_memory(error):
                raise
        # The engine takes it in smaller parts.
        return Prepared(batch)

    def _has_room(self) -> bool:
        """Wait until there is room for one more batch; return False when the thread is to end."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopping or (self._count < MAX_BATCHES_AHEAD and self._bytes < MAX_BYTES_AHEAD)
            )
            return not self._stopping
