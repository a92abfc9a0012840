"""Writes finished label maps beside the forward pass, and records each only when its files are on disk."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from ..common import resources
from ..common.errors import ImageError, OutputLost
from ..common.label_map import Segmentation, count_classes
from ..common.output_layout import output_file
from ..inputs import decoder
from ..inputs.discovery import Source
from .directory import OutputFolder
from .journal import Journal
from .record import Record, failed, gone, now

_THREADS = 2
_MAX_PENDING_IMAGES = 64
_MAX_PENDING_BYTES = 256 << 20

Finished = Callable[[Record], None]
"""Called with each record once it is in the journal."""


@dataclass(frozen=True, slots=True)
class _Pending:
    future: Future[Record]
    size: int
    keep_on_failure: bool = False


class WriteQueue:
    """A small pool of writer threads with a bounded queue, and the journal behind it.

    Records are appended in the order in which photos were handed in, after their files and the files'
    folders are fsynced. All methods belong to one thread.

    Parameters
    ----------
    folder, journal
        Of the output directory; the journal open for appending.
    finished
        Told of every record.
    max_pixels
        For the overlay, which reads the photo again.
    """

    def __init__(self, folder: OutputFolder, journal: Journal, finished: Finished, max_pixels: int) -> None:
        self._folder = folder
        self._journal = journal
        self._finished = finished
        self._max_pixels = max_pixels
        self._threads = ThreadPoolExecutor(
            _THREADS, thread_name_prefix="fcn-write", initializer=resources.lower_thread_priority
        )
        self._pending: deque[_Pending] = deque()
        self._pending_bytes = 0

    def __enter__(self) -> WriteQueue:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    def withdraw(self, photos: Iterable[tuple[Source, Sequence[str]]]) -> None:
        """Prepare to write kinds of output for photos: no record stands for these files any more.

        A run that is killed before the new records are there then leaves no record that describes a file
        wrongly. A photo that is gone and whose names another one takes over loses its record. One fsync,
        however many photos.

        Raises
        ------
        OutputLost
            The journal cannot be written.
        """
        withdrawn: dict[str, Record] = {}
        for source, kinds in photos:
            for name in (output_file(source.output, kind) for kind in kinds):
                owner = self._journal.owner(name)
                record = self._journal.get(owner) if owner is not None else None
                if owner is not None and record is not None:
                    record = withdrawn.get(owner, record)
                    withdrawn[owner] = record.without([name]) if owner == source.image else gone(record)
        with OutputLost.when_refused(self._journal.path):
            self._journal.append(withdrawn.values())

    def add(
        self,
        source: Source,
        record: Record,
        predicted: Segmentation,
        kinds: Sequence[str],
        *,
        keep_on_failure: bool = False,
    ) -> None:
        """Hand in what was predicted, after `withdraw`.

        Parameters
        ----------
        source
            The photo.
        record
            Its record so far, ok; what the files add is added to it: outputs, looks, class counts, seconds.
        predicted
            The label map, and what the kinds need beside it.
        kinds
            The kinds of output to write.
        keep_on_failure
            When these kinds cannot be written, leave the photo's earlier record and other files as they are.
        """
        future = self._threads.submit(self._write, source, record, predicted, kinds)
        size = predicted.nbytes
        self._pending.append(_Pending(future, size, keep_on_failure))
        self._pending_bytes += size

    def add_failed(self, record: Record, *, keep_on_failure: bool = False) -> None:
        """Hand in the record of a photo that failed; what it has from earlier is deleted, or kept."""
        future: Future[Record] = Future()
        future.set_result(record)
        self._pending.append(_Pending(future, 0, keep_on_failure))

    def commit(self, *, everything: bool = False) -> None:
        """Record what is written; with `everything` wait for all of it, else only to stay within bounds.

        Raises
        ------
        OutputLost
            The output directory cannot be written any more.
        """
        ready: list[tuple[Record, bool]] = []
        while self._pending:
            head = self._pending[0]
            must_wait = (
                everything
                or len(self._pending) > _MAX_PENDING_IMAGES
                or (self._pending_bytes > _MAX_PENDING_BYTES and len(self._pending) > 1)
            )
            if not must_wait and not head.future.done():
                break
            record = head.future.result()
            ready.append((record, record.ok or not head.keep_on_failure))
            self._pending.popleft()
            self._pending_bytes -= head.size
        if ready:
            self._append([record for record, lasting in ready if lasting])
            for record, _ in ready:
                self._finished(record)

    def _append(self, records: Sequence[Record]) -> None:
        self._folder.sync(name for record in records for name in record.outputs)
        stale = [name for record in records for name in self._stale(record)]
        with OutputLost.when_refused(self._journal.path):
            self._journal.append(records)
        self._folder.remove(stale)

    def _stale(self, record: Record) -> list[str]:
        """Return the files of the photo's earlier record that the new one does not stand for."""
        earlier = self._journal.get(record.image)
        return [name for name in earlier.outputs if name not in record.outputs] if earlier else []

    def _write(self, source: Source, record: Record, predicted: Segmentation, kinds: Sequence[str]) -> Record:
        started = time.perf_counter()
        labels = predicted.labels
        classes = count_classes(labels)
        try:
            written = self._folder.write(
                source.output, kinds, predicted, lambda: decoder.decode(source.path, self._max_pixels).image
            )
        except ImageError as error:
            # No record stands for these: what an earlier run left there is of another look or photo.
            self._folder.remove(output_file(source.output, kind) for kind in kinds)
            return failed(source, record.fingerprint, error.failure, record.size_bytes, record.mtime_ns)
        sizes = {**record.output_sizes(), **written}
        looks = {kind: look for kind in kinds if (look := self._folder.look(kind)) is not None}
        confidence = record.mean_confidence
        if predicted.confidence is not None:
            confidence = round(float(np.mean(predicted.confidence)) / 255, 4)
        return replace(
            record,
            width=labels.shape[1],
            height=labels.shape[0],
            classes=classes,
            outputs=tuple(sizes),
            output_bytes=tuple(sizes.values()),
            looks={**record.looks, **looks},
            mean_confidence=confidence,
            finished=now(),
            seconds=record.seconds + time.perf_counter() - started,
        )
