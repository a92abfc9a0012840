"""Export an output directory in another tool's format, streamed, with bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ...common import resources
from ...common.errors import ExitCode, Failure, FailureKind, ImageError, RequestError
from ...common.label_map import LabelMap
from ...common.limits import MOST_MASK_PIXELS
from ...common.ordered_work import OrderedWork, Task
from ...common.output_layout import CLASSES_FILE, label_types, output_type_of
from ...inputs import decoder, workers
from ...outputs.directory import read_background, read_classes, read_recorded_labels
from ...outputs.journal import JournalSnapshot
from ...outputs.label_rules import LabelRules, ResolvedRules
from ...outputs.looks import LookRequest
from ...outputs.output_store import LocalStore
from ...outputs.record import Record
from ...outputs.selection import Selection, matching
from ...outputs.settings import read_fingerprint, read_rendering
from ...runs.observers import ProgressObserver
from .coco import CocoExporter
from .files import Destination, Exporter, Results
from .labelstudio import LabelStudioExporter
from .trees import BinaryExporter, CutoutExporter, GeotiffExporter, MasksExporter
from .voc import VocExporter
from .yolo import YoloExporter

FORMATS: dict[str, type[Exporter]] = {
    "coco": CocoExporter,
    "voc": VocExporter,
    "yolo": YoloExporter,
    "labelstudio": LabelStudioExporter,
    "masks": MasksExporter,
    "binary": BinaryExporter,
    "geotiff": GeotiffExporter,
    "cutout": CutoutExporter,
}
"""The class of each format by its name."""

_WITH_IMAGES = frozenset({"voc", "yolo", "geotiff", "cutout"})
"""The formats for which images are read, too."""

EVERY_MASK = Selection()
AS_THEY_ARE = LabelRules()
ALL_BUT_THE_BACKGROUND = LookRequest()


@dataclass
class Export:
    """The result: `records` = `exported` + `skipped` + `unselected` + the number of `failures`.

    Images without a mask, and those of other settings than the directory's, are skipped. `failures` are the
    images that have a mask and could not be exported, with the reason.
    """

    destination: Path
    records: int = 0
    exported: int = 0
    skipped: int = 0
    unselected: int = 0
    failures: list[tuple[str, Failure]] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """The exit code of the process."""
        return ExitCode.SOME_FAILED if self.failures else ExitCode.OK


def export(
    output: Path,
    format_name: str,
    path: Path,
    observer: ProgressObserver,
    *,
    overwrite: bool = False,
    selection: Selection = EVERY_MASK,
    rules: LabelRules = AS_THEY_ARE,
    parts: bool = False,
    polygons: bool = False,
    look: LookRequest = ALL_BUT_THE_BACKGROUND,
    max_pixels: int = MOST_MASK_PIXELS,
) -> Export:
    """Export the images of an output directory that have a mask.

    Parameters
    ----------
    output
        The output directory; it is only read, without a lock.
    format_name
        A key of `FORMATS`.
    path
        The file or directory to write.
    observer
        Is told the progress.
    overwrite
        Replace an earlier export at `path`.
    selection
        Which of them, by the directory's classes.
    rules
        What is done to each label map first, by the directory's classes.
    parts, polygons
        See `Destination`.
    look
        How cutouts look.
    max_pixels
        The most pixels of an image and its mask; never fewer than `MOST_MASK_PIXELS`.

    Raises
    ------
    RequestError
        It is no output directory, the selection is wrong, or `path` must not be written.
    OutputLost
        `path` cannot be written.
    """
    if (parts or polygons) and format_name != "coco":
        raise RequestError(f"--parts and --polygons are for --format coco, not {format_name}")
    if look != ALL_BUT_THE_BACKGROUND and format_name != "cutout":
        raise RequestError(f"--cutout, --crop and --background are for --format cutout, not {format_name}")
    if selection.status == "failed":
        raise RequestError("images that failed have no mask to export; leave --status out")
    decoder.prepare_process(max_pixels)
    with JournalSnapshot(output) as records:
        names = read_classes(output)
        if names is None:
            raise RequestError(f"{output / CLASSES_FILE}: missing or damaged; fcn segment writes it again")
        is_selected, rendering = matching(output, selection), read_rendering(LocalStore(output))
        resolved = rules.resolve(names)
        named, background = resolved.names(names), resolved.background(read_background(output))
        destination = Destination(
            path,
            overwrite,
            named,
            background,
            rendering,
            look.resolve(named, background_class=background).cutout,
            parts=parts or polygons,
            polygons=polygons,
        )
        exporter = FORMATS[format_name](destination)
        observer.begin(len(records))
        if format_name in _WITH_IMAGES:
            workers.start(resources.cpu_count())
        run = _Run(output, exporter, observer, Export(path), is_selected, resolved)
        exporter.write(run.results(records))
    return run.result


class _Run:
    """Passes images through an exporter's jobs, and counts them."""

    def __init__(
        self,
        output: Path,
        exporter: Exporter,
        observer: ProgressObserver,
        result: Export,
        is_selected: Callable[[Record], bool],
        rules: ResolvedRules,
    ) -> None:
        self._store = LocalStore(output)
        self._fingerprint = read_fingerprint(output)
        self._exporter = exporter
        self._observer = observer
        self.result = result
        self._is_selected = is_selected
        self._rules = rules

    def results(self, records: JournalSnapshot) -> Results:
        """Yield the results of the jobs that succeed, in order."""
        # What waits are results only, as small as an image's annotations.
        with OrderedWork[Record, Any](resources.cpu_count(), "fcn-export", max_bytes=0) as work:
            for record in records:
                self.result.records += 1
                if not record.ok or record.fingerprint != self._fingerprint or not label_files(record):
                    self.result.skipped += 1
                    self._observer.step()
                    continue
                if not self._is_selected(record):
                    self.result.unselected += 1
                    self._observer.step()
                    continue
                work.submit(record, partial(self._do, record, self._exporter.job(record)))
                for task in work.take():
                    yield from self._taken(task)
            for task in work.take(everything=True):
                yield from self._taken(task)

    def _do(self, record: Record, job: Callable[[LabelMap], Any]) -> Any:
        return job(self._rules.labels(_read_labels(self._store, record)))

    def _taken(self, task: Task[Record, Any]) -> Iterator[Any]:
        try:
            result = task.future.result()
        except ImageError as error:
            self.result.failures.append((task.key.image, error.failure))
            self._observer.step(failed=True)
            return
        except MemoryError:
            failure = Failure(FailureKind.OUT_OF_MEMORY, "not enough memory for this image")
            self.result.failures.append((task.key.image, failure))
            self._observer.step(failed=True)
            return
        yield result
        self.result.exported += 1
        self._observer.step()


def label_files(record: Record) -> list[str]:
    """Return the record's files that are label maps, the better one first."""
    by_type = {output_type_of(name): name for name in record.outputs}
    return [by_type[output_type] for output_type in label_types() if output_type in by_type]


def _read_labels(output: LocalStore, record: Record) -> LabelMap:
    """Return an image's label map from its mask, or else from its colours."""
    first: ImageError | None = None
    for name in label_files(record):
        try:
            return read_recorded_labels(output, name, record)
        except ImageError as error:
            first = first or error
    assert first is not None  # noqa: S101 - images without label maps are skipped
    raise first
