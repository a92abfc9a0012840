"""Photos that need no network: missing kinds of output are made from their label maps on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..common.label_map import Segmentation
from ..common.output_layout import output_file
from ..outputs.directory import OutputDirectory
from ..outputs.write_queue import WriteQueue
from .plan import Remake, Segment

# How many photos are made ready at once for files that a record stands for to be written again.
_REWRITE_GROUP = 16


def make_from_labels(
    steps: Sequence[Remake], folder: OutputDirectory, writes: WriteQueue, ended: Callable[[], bool]
) -> Iterator[Segment]:
    """Write kinds of output from label maps on disk.

    Parameters
    ----------
    steps
        The images.
    folder, writes
        The output directory, and the queue that writes into it.
    ended
        Says whether the run is to end.

    Yields
    ------
    Segment
        The photos whose label maps are not usable, to be segmented again.
    """
    for first in range(0, len(steps), _REWRITE_GROUP):
        group = steps[first : first + _REWRITE_GROUP]
        if ended():
            return
        writes.retract((step.source, step.types) for step in group)
        for step in group:
            if not _make_one(step, folder, writes):
                yield Segment(step.source, "its label map cannot be used")
            writes.commit()


def _make_one(step: Remake, folder: OutputDirectory, writes: WriteQueue) -> bool:
    labels = folder.read_labels(step.label_file, step.record)
    if labels is None:
        return False
    rest = step.record.without(output_file(step.source.output, kind) for kind in step.types)
    writes.add(step.source, rest, Segmentation(labels), step.types, completes=True)
    return True
