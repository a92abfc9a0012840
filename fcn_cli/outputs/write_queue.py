"""Writes label maps beside the forward pass, and records each photo only when its files are on disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from functools import cache, partial
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

from ..common import resources
from ..common.errors import ImageError, OutputLost
from ..common.label_map import Segmentation, count_classes
from ..common.ordered_work import OrderedWork
from ..common.output_layout import output_file
from ..inputs import decoder
from ..inputs.discovery import Source
from ..inputs.samples import BY_THE_FILE, Rendering
from .directory import OutputDirectory
from .record import Record, Written, finish, gone

# They mostly wait for fsync, and file systems make many of those one.
_THREADS_PER_CPU = 2
_MIN_THREADS = 4
_MAX_THREADS = 32
_MAX_WAITING_IMAGES = 64
_MAX_WAITING_BYTES = 256 << 20

Finished = Callable[[Record], None]
"""Called with each record once it is in the journal."""


class Records(Protocol):
    """Where records go: the `Journal`, or in another process what hands them to the journal's holder."""

    @property
    def path(self) -> object:
        """What a message names when records cannot be appended."""

    def get(self, image: str) -> Record | None:
        """Return the last record of an image."""

    def owner(self, output: str) -> str | None:
        """Return the image whose record names this output file."""

    def append(self, records: Iterable[Record]) -> None:
        """Append records; their output files are on disk."""


def _thread_count() -> int:
    return max(_MIN_THREADS, min(_THREADS_PER_CPU * resources.cpu_count(), _MAX_THREADS))


class _Encoded(NamedTuple):
    """A record whose files are written, or that has none; see `WriteQueue.add` for `keep_on_failure`."""

    record: Record
    keep_on_failure: bool


class _Committer:
    """What the commit thread does: it alone changes the journal."""

    def __init__(self, folder: OutputDirectory, journal: Records) -> None:
        self._folder = folder
        self._journal = journal

    def withdraw(self, owned: Iterable[tuple[Source, str]]) -> Sequence[Record]:
        """Append records that no longer name these output files of photos."""
        withdrawn: dict[str, Record] = {}
        for source, name in owned:
            owner = self._journal.owner(name)
            record = self._journal.get(owner) if owner is not None else None
            if owner is not None and record is not None:
                record = withdrawn.get(owner, record)
                withdrawn[owner] = record.without([name]) if owner == source.image else gone(record)
        with OutputLost.when_refused(self._journal.path):
            self._journal.append(withdrawn.values())
        return ()

    def append(self, encoded: Sequence[_Encoded]) -> Sequence[Record]:
        """Append records once the names of their files are durable; return what to notify about."""
        records = [one.record for one in encoded if one.record.ok or not one.keep_on_failure]
        self._folder.sync(name for record in records for name in record.outputs)
        stale: list[str] = []
        for record in records:
            earlier = self._journal.get(record.image)
            # Files of the earlier record that the new one does not name.
            stale += [name for name in earlier.outputs if name not in record.outputs] if earlier else []
        with OutputLost.when_refused(self._journal.path):
            self._journal.append(records)
        self._folder.remove(stale)
        return [one.record for one in encoded]


class WriteQueue:
    """Encodes and writes photos in threads; another thread appends their records to the journal.

    Records are appended in the order in which photos were added, after their files and the files' directories
    are fsynced. There is one fsync for all records that became ready during the one before. Leaving the
    context drops what has not begun. All methods belong to one thread; nobody else may use the journal until
    ``commit(everything=True)`` returns.

    Parameters
    ----------
    folder, journal
        The output directory, and its journal, open for appending.
    notify
        Called with every record, in the thread that calls `commit`.
    max_pixels, rendering
        The limit on a photo's pixels and how its samples become RGB, for kinds that decode the photo again.
    """

    def __init__(
        self,
        folder: OutputDirectory,
        journal: Records,
        notify: Finished,
        max_pixels: int,
        rendering: Rendering = BY_THE_FILE,
    ) -> None:
        self._folder = folder
        self._journal = journal
        self._committer = _Committer(folder, journal)
        self._finished = notify
        self._max_pixels = max_pixels
        self._rendering = rendering
        # The key of a task is `keep_on_failure`.
        self._work = OrderedWork[bool, Record](
            _thread_count(),
            "fcn-write",
            max_bytes=_MAX_WAITING_BYTES,
            max_count=_MAX_WAITING_IMAGES,
            low_priority=True,
        )
        # Each task returns the records to notify about.
        self._commits = OrderedWork[None, Sequence[Record]](1, "fcn-commit", max_bytes=0, low_priority=True)
        self._withdrawn: Future[Sequence[Record]] | None = None

    def __enter__(self) -> WriteQueue:
        return self

    def __exit__(self, *error: object) -> None:
        # In this order: a photo in hand may wait for what it withdraws.
        self._work.__exit__(*error)
        self._commits.__exit__(*error)

    def withdraw(self, photos: Iterable[tuple[Source, Sequence[str]]]) -> None:
        """Prepare to write kinds of output for photos: append records that no longer name these files.

        So a run that is killed before it appends the new records leaves no record that describes a file
        wrongly. A photo that no longer exists, and whose output names another photo takes over, loses its
        record. One fsync for all photos; what is added from now on is written after it.
        """
        owned = [
            (source, name)
            for source, kinds in photos
            for name in (output_file(source.output, kind) for kind in kinds)
            # Only an earlier run's record is looked for here: names of one run's photos differ.
            if self._journal.owner(name) is not None
        ]
        if owned:
            self._withdrawn = self._commits.submit(None, partial(self._committer.withdraw, owned))

    def add(
        self,
        source: Source,
        record: Record,
        segmentation: Segmentation,
        kinds: Sequence[str],
        *,
        keep_on_failure: bool = False,
    ) -> None:
        """Write a photo's output files and its record; call `withdraw` before.

        Parameters
        ----------
        source
            The photo.
        record
            Its record as `record.begin` returns it, or its earlier record without the files to write.
        segmentation
            The label map, and the confidence where a kind needs it.
        kinds
            The kinds of output to write.
        keep_on_failure
            When these kinds cannot be written, leave the photo's earlier record and other files unchanged.
        """
        work = partial(self._write, source, record, segmentation, kinds, self._withdrawn)
        self._work.submit(keep_on_failure, work, segmentation.nbytes)

    def add_record(self, record: Record, *, keep_on_failure: bool = False) -> None:
        """Add a record without files to write: the photo failed, or another process has written them."""
        self._work.submit_result(keep_on_failure, record)

    def commit(self, *, everything: bool = False) -> None:
        """Have the records of what is written appended, and notify about those that are.

        Waits for all photos with `everything`, else only while more photos or bytes wait than is allowed.

        Raises
        ------
        OutputLost
            The output directory cannot be written any more.
        """
        self._notify(everything=False)
        encoded: list[_Encoded] = []
        if everything or not len(self._commits) or self._work.is_over_bounds:
            for keep_on_failure, future, _ in self._work.take(everything=everything):
                encoded.append(_Encoded(future.result(), keep_on_failure))
        if encoded:
            self._commits.submit(None, partial(self._committer.append, encoded))
        self._notify(everything=everything)

    def _notify(self, *, everything: bool) -> None:
        for _, future, _ in self._commits.take(everything=everything):
            for record in future.result():
                self._finished(record)

    def _write(
        self,
        source: Source,
        record: Record,
        segmentation: Segmentation,
        kinds: Sequence[str],
        withdrawn: Future[Sequence[Record]] | None,
    ) -> Record:
        if withdrawn is not None:
            withdrawn.result()
        started = time.perf_counter()
        labels, confidence = segmentation.labels, segmentation.confidence

        @cache
        def photo() -> Image.Image:
            return decoder.decode(source.path, self._max_pixels, self._rendering).image

        try:
            sizes = self._folder.write(source.output, kinds, segmentation, photo)
        except ImageError as error:
            # No record names these files: they are of another look or another photo.
            self._folder.remove(output_file(source.output, kind) for kind in kinds)
            return finish(record.moved_to(source), error.failure)
        height, width = labels.shape
        written = Written(
            width,
            height,
            count_classes(labels),
            sizes,
            {kind: look for kind in kinds if (look := self._folder.look(kind)) is not None},
            round(float(np.mean(confidence)) / 255, 4) if confidence is not None else None,
            time.perf_counter() - started,
        )
        return finish(record, written)
