"""Photos that need no network: missing kinds of output are made from their label maps on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..common.label_map import Segmentation
from ..common.output_layout import output_file
from ..outputs.directory import OutputDirectory
from ..outputs.write_queue import WriteQueue
from .resume_plan import Action, Step

# How many photos are made ready at once for files that a record stands for to be written again.
_REWRITE_GROUP = 16


def make_from_labels(
    steps: Sequence[Step], folder: OutputDirectory, writes: WriteQueue, ended: Callable[[], bool]
) -> Iterator[Step]:
    """Write kinds of output from label maps on disk.

    Parameters
    ----------
    steps
        The photos; each has a `label_file`.
    folder, writes
        The output directory, and the queue that writes into it.
    ended
        Says whether the run is to end.

    Yields
    ------
    Step
        The photos whose label maps are not usable, to be segmented again.
    """
    for first in range(0, len(steps), _REWRITE_GROUP):
        group = steps[first : first + _REWRITE_GROUP]
        if ended():
            return
        writes.withdraw((step.source, step.kinds) for step in group if step.source is not None)
        for step in group:
            if not _make_one(step, folder, writes):
                yield Step(Action.SEGMENT, step.image, "its label map cannot be used", step.source)
            writes.commit()


def _make_one(step: Step, folder: OutputDirectory, writes: WriteQueue) -> bool:
    record, source = step.record, step.source
    assert record is not None and source is not None and step.label_file is not None  # noqa: S101, PT018 - `Step`
    labels = folder.read_labels(step.label_file, record)
    if labels is None:
        return False
    rest = record.without(output_file(source.output, kind) for kind in step.kinds)
    writes.add(source, rest, Segmentation(labels), step.kinds, keep_on_failure=True)
    return True
