"""Write label maps in parallel to the forward pass; record each image once its files are on disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np

from ..common import resources
from ..common.errors import ImageError, OutputLost
from ..common.label_map import Segmentation, count_classes
from ..common.ordered_work import OrderedWork
from ..common.output_layout import output_file
from ..inputs.decode_options import DecodeOptions
from ..inputs.discovery import Source
from .directory import OutputDirectory
from .label_rules import AS_PREDICTED, ResolvedRules
from .record import Record, Written, finish, gone
from .writers import Original

# They mostly wait for fsync, and file systems make many of those one.
_THREADS_PER_CPU = 2
_MIN_THREADS = 4
_MAX_THREADS = 32
_MAX_WAITING_IMAGES = 64
_MAX_WAITING_BYTES = 256 << 20


class Outcome(NamedTuple):
    """What became of an image: its record, of files that are on disk or of a failure.

    It does not replace the image's earlier record when that one's files stay: some more could not be made.
    """

    record: Record
    replaces_earlier: bool = True


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


class _Committer:
    """What the commit thread does: it alone changes the journal."""

    def __init__(self, folder: OutputDirectory, journal: Records) -> None:
        self._folder = folder
        self._journal = journal

    def retract(self, owned: Iterable[tuple[Source, str]]) -> Sequence[Outcome]:
        """Append records that no longer name these output files of images."""
        retracted: dict[str, Record] = {}
        for source, name in owned:
            owner = self._journal.owner(name)
            record = self._journal.get(owner) if owner is not None else None
            if owner is not None and record is not None:
                record = retracted.get(owner, record)
                retracted[owner] = record.without([name]) if owner == source.image else gone(record)
        with OutputLost.when_refused(self._journal.path):
            self._journal.append(retracted.values())
        return ()

    def append(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """Append records once the names of their files are durable; return what to notify about."""
        records = [outcome.record for outcome in outcomes if outcome.replaces_earlier]
        self._folder.sync(name for record in records for name in record.outputs)
        stale: list[str] = []
        for record in records:
            earlier = self._journal.get(record.image)
            # Files of the earlier record that the new one does not name.
            stale += [name for name in earlier.outputs if name not in record.outputs] if earlier else []
        with OutputLost.when_refused(self._journal.path):
            self._journal.append(records)
        self._folder.remove(stale)
        return outcomes


class WriteQueue:
    """Encodes and writes images in threads; another thread appends their records to the journal.

    Records are appended in the order in which images were added, after their files and the files' directories
    are fsynced. There is one fsync for all records that became ready during the one before. Leaving the
    context drops what has not begun. All methods belong to one thread. Nobody else may append to the journal
    until ``commit(everything=True)`` returns.

    Parameters
    ----------
    folder, journal
        The output directory, and its journal, open for appending.
    notify
        Called with every outcome once its record is in the journal, in the thread that calls `commit`.
    decoding
        How images are decoded, for output types that need them again.
    """

    def __init__(
        self,
        folder: OutputDirectory,
        journal: Records,
        notify: Callable[[Outcome], None],
        decoding: DecodeOptions,
    ) -> None:
        self._folder = folder
        self._journal = journal
        self._committer = _Committer(folder, journal)
        self._notify_of = notify
        self._decoding = decoding
        self._work = OrderedWork[None, Outcome](
            _thread_count(),
            "fcn-write",
            max_bytes=_MAX_WAITING_BYTES,
            max_count=_MAX_WAITING_IMAGES,
            low_priority=True,
        )
        # Each task returns what to notify about.
        self._commits = OrderedWork[None, Sequence[Outcome]](1, "fcn-commit", max_bytes=0, low_priority=True)
        self._retracted: Future[Sequence[Outcome]] | None = None

    def __enter__(self) -> WriteQueue:
        return self

    def __exit__(self, *error: object) -> None:
        # In this order: an image in flight may wait for what it retracts.
        self._work.__exit__(*error)
        self._commits.__exit__(*error)

    def retract(self, images: Iterable[tuple[Source, Sequence[str]]]) -> None:
        """Prepare to write output types of images: append records that no longer name these files.

        So a run that is killed before it appends the new records leaves no record that describes a file
        wrongly. An image that no longer exists, and whose output names another image takes over, loses its
        record. One fsync for all images; what is added from now on is written after it.
        """
        owned = [
            (source, name)
            for source, types in images
            for name in (output_file(source.output, one) for one in types)
            # Only an earlier run's record is looked for here: names of one run's images differ.
            if self._journal.owner(name) is not None
        ]
        if owned:
            self._retracted = self._commits.submit(None, partial(self._committer.retract, owned))

    def add(
        self,
        source: Source,
        record: Record,
        segmentation: Segmentation,
        types: Sequence[str],
        *,
        completes: bool = False,
        rules: ResolvedRules = AS_PREDICTED,
    ) -> None:
        """Write an image's output files and its record; call `retract` before.

        Parameters
        ----------
        source
            The image.
        record
            Its record as `record.begin` returns it, or its earlier record without the files to write.
        segmentation
            The label map, and the confidence where an output type needs it.
        types
            The output types to write.
        completes
            When they cannot be written, leave the image's earlier record and other files unchanged.
        rules
            What is done to the label map first, in the thread that writes the files.
        """
        retracted = self._retracted

        def work() -> Outcome:
            if retracted is not None:
                retracted.result()
            written = self._write(source, record, rules(segmentation), types)
            return Outcome(written, replaces_earlier=written.ok or not completes)

        self._work.submit(None, work, segmentation.nbytes)

    def add_outcome(self, outcome: Outcome) -> None:
        """Add what needs no files to be written: the image failed, or another process has written them."""
        self._work.submit_result(None, outcome)

    def commit(self, *, everything: bool = False) -> None:
        """Have the records of what is written appended, and notify about those that are.

        Waits for all images with `everything`, else only while more images or bytes wait than is allowed.

        Raises
        ------
        OutputLost
            The output directory cannot be written any more.
        """
        self._notify(everything=False)
        outcomes: list[Outcome] = []
        if everything or not len(self._commits) or self._work.is_over_bounds:
            for task in self._work.take(everything=everything):
                outcomes.append(task.future.result())
                self._notify(everything=False)
                is_next_ready = len(self._work) and self._work[0].future.done()
                if not is_next_ready and not len(self._commits):
                    # The others may take long: a kill meanwhile must not cost what is ready.
                    self._append(outcomes)
                    outcomes = []
        self._append(outcomes)
        self._notify(everything=everything)

    def _append(self, outcomes: Sequence[Outcome]) -> None:
        if outcomes:
            self._commits.submit(None, partial(self._committer.append, outcomes))

    def _notify(self, *, everything: bool) -> None:
        for task in self._commits.take(everything=everything):
            for outcome in task.future.result():
                self._notify_of(outcome)

    def _write(
        self, source: Source, record: Record, segmentation: Segmentation, types: Sequence[str]
    ) -> Record:
        started = time.perf_counter()
        labels, confidence = segmentation.labels, segmentation.confidence
        original = Original(source.path, self._decoding)
        try:
            sizes = self._folder.write(source, types, segmentation, original)
        except ImageError as error:
            # No record names these files: they are of another look or another image.
            self._folder.remove(output_file(source.output, one) for one in types)
            return finish(record.moved_to(source), error.failure)
        height, width = labels.shape
        written = Written(
            width,
            height,
            count_classes(labels),
            sizes,
            {one: look for one in types if (look := self._folder.look(one)) is not None},
            round(float(np.mean(confidence)) / 255, 4) if confidence is not None else None,
            time.perf_counter() - started,
        )
        return finish(record, written)
