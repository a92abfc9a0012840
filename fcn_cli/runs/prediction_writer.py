"""Turn predictions, and existing label maps, into output files and records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ..common.errors import Failure, FailureKind
from ..common.label_map import Segmentation
from ..common.output_layout import output_file
from ..inputs.discovery import Source
from ..outputs import record
from ..outputs.directory import OutputDirectory
from ..outputs.label_rules import ResolvedRules
from ..outputs.record import Record
from ..outputs.write_queue import Outcome, WriteQueue
from .plan import Complete, Remake, Segment

if TYPE_CHECKING:
    # torch comes with these: a run with nothing to do never imports them.
    from ..inference.execution import ExecutionConfig
    from ..inputs.decoder import DecodedImage
    from .prediction_stream import Prediction

GiveBack = Callable[[Source], bool]
"""Takes an image back that changed or vanished since it was found; False if it has to fail after all."""

_REWRITE_GROUP = 16
"""How many images are made ready at once for files that a record stands for to be written again."""

_GIVEN_BACK = frozenset({FailureKind.CHANGED, FailureKind.NOT_FOUND})


class PredictionWriter:
    """Hands predictions to the write queue: all output types of new images, missing ones of others, failures.

    `steps_to_complete` are those, by image, of images that lack some output types only. Without `give_back`,
    images that changed or vanished since they were found fail. `rules` are for what the network predicts.
    """

    def __init__(
        self,
        writes: WriteQueue,
        types: Sequence[str],
        fingerprint: str,
        steps_to_complete: Mapping[str, Complete],
        rules: ResolvedRules,
        give_back: GiveBack | None = None,
    ) -> None:
        self._writes = writes
        self._types = types
        self._fingerprint = fingerprint
        self._steps_to_complete = steps_to_complete
        self._rules = rules
        self._give_back = give_back

    def write(self, batch: Sequence[Prediction], execution: ExecutionConfig) -> None:
        """Write the predictions of one batch, which the network computed as `execution` says."""
        self._writes.retract(
            (prediction.image.source, self._types_of(prediction))
            for prediction in batch
            if not isinstance(prediction.result, Failure)
        )
        for prediction in batch:
            self._write_one(prediction, execution)

    def fail(self, image: DecodedImage, failure: Failure) -> None:
        """Record a failure."""
        source = image.source
        if failure.kind in _GIVEN_BACK and self._give_back is not None and self._give_back(source):
            return
        failed = record.finish(record.begin(source, self._fingerprint, image), failure)
        replaces_earlier = source.image not in self._steps_to_complete
        self._writes.add_outcome(Outcome(failed, replaces_earlier))

    def _write_one(self, prediction: Prediction, execution: ExecutionConfig) -> None:
        image, result = prediction.image, prediction.result
        source = image.source
        if isinstance(result, Failure):
            self.fail(image, result)
            return
        types = self._types_of(prediction)
        earlier = self._record_to_complete(prediction)
        if earlier is not None:
            # The record names the files that stay; `retract` took out those that are written now.
            rest = earlier.without(output_file(source.output, output_type) for output_type in types)
            self._writes.add(source, rest, result, types, completes=True, rules=self._rules)
            return
        begun = record.begin(
            source,
            self._fingerprint,
            image,
            device=str(execution.device),
            precision=result.precision or execution.precision,
            seconds=prediction.seconds,
        )
        self._writes.add(source, begun, result, types, rules=self._rules)

    def _record_to_complete(self, prediction: Prediction) -> Record | None:
        """Return the record of an image that lacks some types, unless the image has another size by now."""
        image = prediction.image
        step = self._steps_to_complete.get(image.source.image)
        if step is None or step.record.size != (image.width, image.height):
            return None
        return step.record

    def _types_of(self, prediction: Prediction) -> Sequence[str]:
        if self._record_to_complete(prediction) is None:
            return self._types
        return self._steps_to_complete[prediction.image.source.image].types


def make_from_labels(
    steps: Sequence[Remake], folder: OutputDirectory, writes: WriteQueue, ended: Callable[[], bool]
) -> Iterator[Segment]:
    """Write output types from label maps on disk; yield the images whose label maps cannot be used."""
    for first in range(0, len(steps), _REWRITE_GROUP):
        group = steps[first : first + _REWRITE_GROUP]
        if ended():
            return
        writes.retract((step.source, step.types) for step in group)
        for step in group:
            if not _make_one(step, folder, writes):
                yield Segment(step.source, "its mask cannot be used")
            writes.commit()


def _make_one(step: Remake, folder: OutputDirectory, writes: WriteQueue) -> bool:
    labels = folder.read_labels(step.label_file, step.record)
    if labels is None:
        return False
    rest = step.record.without(output_file(step.source.output, output_type) for output_type in step.types)
    writes.add(step.source, rest, Segmentation(labels), step.types, completes=True)
    return True
