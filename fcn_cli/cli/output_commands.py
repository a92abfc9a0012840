"""The commands about an output directory: status, list, verify, report, export, merge."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..common import store_urls
from ..common.errors import FcnError, OutputLost, RequestError
from ..common.limits import MOST_MASK_PIXELS
from ..common.output_layout import is_output_directory
from ..common.wording import counted, duration
from ..outputs.json_text import seconds_of
from . import options
from .console import print_message, print_object, write_line

if TYPE_CHECKING:
    from ..outputs.status import Status
    from ..outputs.verification import Verification
    from ..report.exports.export import Export
    from ..runs.report import Summary

_SHOWN_FAILURES = 10
_SHOWN_ORPHANS = 10


def status(
    output: options.OutputDirectory,
    max_age: options.MaxAge = None,
    as_json: options.FiguresAsJson = False,
    quiet: options.Quiet = False,  # noqa: ARG001 - it prints data only
    verbose: options.Verbose = False,  # noqa: ARG001 - for `__main__`
) -> None:
    """Show the progress of the current or last run into an output directory.

    Works during a run without disturbing it. A run on another host counts as running until it ends: only its
    own host can tell whether it was killed.

    Exit codes: 0 all images are done; 1 some failed or were not reached, or the last run ended with an error
    or longer ago than --max-age; 2 OUT is not an output directory; 4 a run is in progress.
    """
    from ..outputs.status import read_status

    found = read_status(output)
    too_old = max_age is not None and found.is_older(max_age)
    if as_json:
        print_object({**found.as_json(), **({"too_old": too_old} if max_age is not None else {})})
    else:
        for line in _lines(found):
            write_line(line, sys.stdout)
        if too_old:
            write_line(f"no run has ended in the last {duration(max_age)}", sys.stdout)
    raise typer.Exit(found.exit_code or int(too_old))


def _lines(status: Status) -> Iterator[str]:
    from ..outputs.status import State

    if status.shards:
        yield f"{status.output}: {_states_of_shards(status)}"
        for shard, one in status.shards.items():
            if one.state == State.KILLED or (one.run is not None and one.run.counts.left and one.run.ending):
                yield f"shard {shard}: {_state(one)}"
    else:
        yield f"{status.output}: {_state(status)}"
    counts = status.counts
    if counts is None:
        return
    parts = [f"{counts.done} done", f"{counts.failed} failed"]
    if counts.left:
        parts.append(f"{counts.left} left")
    yield f"{counted(counts.total, 'image')}: {', '.join(parts)}"
    if status.seconds_left is not None:
        yield f"{status.images_per_second:.2f} images/s, about {duration(status.seconds_left)} left"
    if (counts.left or status.state == State.NOT_BEGUN) and status.exit_code == 1:
        command = "fcn segment commands of these shards" if status.shards else "fcn segment command"
        yield f"to continue, run the same {command} again"


def _states_of_shards(status: Status) -> str:
    states = Counter(one.state for one in status.shards.values())
    parts = [f"{count} {state}" for state, count in states.items()]
    return f"{counted(len(status.shards), 'shard')}: {', '.join(parts)}"


def _state(status: Status) -> str:
    from ..outputs.status import State

    run = status.run
    unsure = "" if status.is_alive else "; whether it is alive cannot be seen from this machine"
    if status.state == State.STARTING:
        return f"a run is starting ({status.holder}), looking for images{unsure}"
    if run is None:
        return "no run.json; the counts are from the records"
    began = f"{run.process}, began {_when(run.start)}"
    if status.state == State.RUNNING:
        return f"running: {began}{unsure}"
    if run.ending is None:
        last = f", last record {status.last_record}" if status.last_record else ""
        return f"killed, or it could not write how it ended: {began}{last}"
    reason = f": {run.ending.stopped}" if run.ending.stopped else ""
    return f"ended {_when(run.ending.time)} with exit code {run.ending.exit_code}{reason}"


def _when(text: str) -> str:
    seconds = seconds_of(text)
    return f"{text} ({duration(time.time() - seconds)} ago)" if seconds is not None else text


def list_images(
    output: options.OutputDirectory,
    classes: options.SelectedClasses = None,
    minimum: options.Minimum = None,
    maximum: options.Maximum = None,
    status: options.StatusOption = options.RecordStatus.OK,
    outputs: options.OutputsOption = None,
    null: options.NullOutput = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,  # noqa: ARG001 - for `__main__`
) -> None:
    """Print the paths of images, one per line, selected by the classes in their masks.

    Paths are absolute. Names that are not UTF-8 are printed byte for byte, and escaped on a terminal.

    For example: fcn list OUT --class cat --min 5% -0 | xargs -0 -r cp --parents -t cats/

    Exit codes: 0 done, also when nothing is selected; 2 the request is wrong, or OUT is not an output
    directory.
    """
    from ..outputs import selection

    wanted = selection.Selection(status, classes or (), minimum, maximum)
    found = broken = 0
    end = b"\0" if null else b"\n"
    is_read_by_people = sys.stdout.isatty()
    for path in selection.paths(output, wanted, outputs):
        if is_read_by_people:
            write_line(path, sys.stdout)
        else:
            sys.stdout.buffer.write(os.fsencode(path) + end)
        found += 1
        broken += "\n" in path
    if not found:
        text = f"{output}: no matching images" + (f" with {outputs}" if outputs else "")
        print_message(text, show=not quiet)
    if broken and not null:
        print_message("some of these paths contain line breaks; use --null, for example with xargs -0")


def verify(
    output: options.OutputDirectory,
    max_image_pixels: options.MaxMaskPixels = MOST_MASK_PIXELS,
    as_json: options.FiguresAsJson = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,  # noqa: ARG001 - for `__main__`
) -> None:
    """Check every file of an output directory against its record.

    Checks each file's size in bytes, that it decodes, its width and height, the pixels per class of masks and
    colours, and all PNG checksums. Prints one line per problem and changes nothing. During a run, it checks
    what was recorded when the check began.

    Exit codes: 0 all files are as recorded; 1 some are not; 2 OUT is not an output directory.
    """
    from ..outputs import verification
    from .display import ProgressBar

    progress = ProgressBar(quiet=quiet)
    with contextlib.closing(progress):
        result = verification.verify(output, progress, max_image_pixels)
    if as_json:
        print_object(result.as_json())
    else:
        for problem in result.problems:
            write_line(f"{output / problem.file}: {problem.damage}; {problem.remedy}", sys.stdout)
    _sum_up_check(result, show=not quiet)
    raise typer.Exit(result.exit_code)


def _sum_up_check(result: Verification, *, show: bool) -> None:
    for name in result.orphans[:_SHOWN_ORPHANS]:
        print_message(f"{result.output / name}: belongs to no record", show=show)
    if len(result.orphans) > _SHOWN_ORPHANS:
        more = len(result.orphans) - _SHOWN_ORPHANS
        print_message(f"and {more} more that belong to no record; --json lists them", show=show)
    if result.run is not None:
        print_message(
            f"a run is in progress ({result.run}): only what was recorded before this check is checked, "
            "and files without a record are not listed",
            show=show,
        )
    problems = counted(len(result.problems), "problem") if result.problems else "no problems"
    print_message(
        f"{counted(result.files, 'file')} of {counted(result.images, 'image')} checked: {problems}", show=show
    )


def report(
    output: options.OutputDirectory,
    max_image_pixels: options.MaxMaskPixels = MOST_MASK_PIXELS,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,  # noqa: ARG001 - for `__main__`
) -> None:
    """Write OUT/report.html, a page to view all images and masks in a browser.

    Works offline. Pictures of an earlier report are used again.

    Exit codes: 0 the report is written; 2 OUT is not an output directory; 5 the report cannot be written.
    """
    write_report(output, max_image_pixels, quiet=quiet)


def check_report_place(output: str) -> None:
    """Refuse ``--report`` where the run cannot write a report at its end."""
    if store_urls.is_url(store_urls.local_path(output)):
        raise RequestError(
            f"--report: a report needs a local directory, not {output}; leave it out, and run fcn "
            "report on a local copy"
        )
    from ..report import page

    page.refuse_foreign(Path(store_urls.local_path(output)))


def report_after(summary: Summary, max_pixels: int, *, quiet: bool) -> None:
    """Write the report at the end of a run, also of one that had nothing to do.

    A run that ended early writes none: it was interrupted, or its output directory or device is lost.

    Raises
    ------
    OutputLost
        The report cannot be written. The masks are not affected.
    """
    if summary.stopped is not None:
        print_message(f"no report, because the run ended early; fcn report {summary.output} writes one")
        return
    if not is_output_directory(summary.output):
        print_message(f"no report: {summary.output} has no images yet", show=not quiet)
        return
    try:
        write_report(Path(summary.output), max_pixels, quiet=quiet)
    except FcnError as error:
        raise OutputLost(f"no report: {error}; the masks are not affected") from None


def write_report(output: Path, max_pixels: int, *, quiet: bool) -> None:
    """Write the report of an output directory, show the progress, and say where the page is."""
    from ..report import directory
    from .display import ProgressBar

    progress = ProgressBar(quiet=quiet)
    try:
        written = directory.write_report(output, progress, max_pixels)
    finally:
        progress.close()
    text = f"report of {counted(written.images, 'image')}"
    if written.incomplete:
        text += f", {written.incomplete} of them without the image or its mask"
    print_message(f"{text}: see {written.path}", show=not quiet)


def export(
    output: options.OutputDirectory,
    format_name: options.FormatOption,
    destination: options.ExportDestination,
    classes: options.SelectedClasses = None,
    minimum: options.Minimum = None,
    maximum: options.Maximum = None,
    status: options.StatusOption = options.RecordStatus.OK,
    map: options.ExportMap = None,  # noqa: A002 - the option's name
    min_region: options.ExportMinRegion = 0,
    parts: options.Parts = False,
    polygons: options.Polygons = False,
    cutout: options.ExportCutout = None,
    crop: options.ExportCrop = None,
    background: options.ExportBackground = None,
    overwrite: options.ReplaceExport = False,
    max_image_pixels: options.MaxMaskPixels = MOST_MASK_PIXELS,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,  # noqa: ARG001 - for `__main__`
) -> None:
    """Export the masks of an output directory for other tools.

    coco: a JSON file with run lengths or polygons. voc: JPEGs and paletted masks in Pascal VOC's directories.
    yolo: JPEGs and polygons. labelstudio: tasks with brush labels, and a labelling configuration. masks: only
    the masks. binary: a black-and-white mask per image and class. geotiff: masks with the georeference of
    their images. cutout: classes cut out of their images.

    Exports are written atomically. An image that is gone or has changed is reported, and left out of voc,
    yolo, geotiff and cutout.

    Exit codes: 0 all selected images with a mask are exported; 1 some are not; 2 the request is wrong; 5 DEST
    cannot be written; 129, 130 and 143 stopped by a signal, nothing is written.
    """
    from ..outputs.label_rules import LabelRules, read_map
    from ..outputs.looks import LookRequest
    from ..outputs.selection import Selection
    from ..report.exports import export as exporting
    from .display import ProgressBar

    progress = ProgressBar(quiet=quiet)
    with contextlib.closing(progress):
        result = exporting.export(
            output,
            format_name,
            destination,
            progress,
            overwrite=overwrite,
            selection=Selection(status, classes or (), minimum, maximum),
            rules=LabelRules(read_map(map), min_region),
            parts=parts,
            polygons=polygons,
            look=LookRequest(classes=cutout or None, crop=crop, background=background),
            max_pixels=max_image_pixels,
        )
    _sum_up_export(result, show=not quiet)
    raise typer.Exit(result.exit_code)


def _sum_up_export(result: Export, *, show: bool) -> None:
    for image, failure in result.failures[:_SHOWN_FAILURES]:
        print_message(f"not exported: {image}: {failure.message}")
    if len(result.failures) > _SHOWN_FAILURES:
        print_message(f"and {len(result.failures) - _SHOWN_FAILURES} more not exported")
    parts = [f"{result.exported} exported"]
    if result.skipped:
        parts.append(f"{result.skipped} without a mask skipped")
    if result.unselected:
        parts.append(f"{result.unselected} not selected")
    if result.failures:
        parts.append(f"{len(result.failures)} failed")
    print_message(
        f"{counted(result.records, 'record')}: {', '.join(parts)}; see {result.destination}", show=show
    )


def merge(
    output: options.MergedDirectory,
    wait: options.Wait = 0.0,
    as_json: options.FiguresAsJson = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,  # noqa: ARG001 - for `__main__`
) -> None:
    """Merge the records and statistics of shards; segment nothing.

    The last shard to finish merges by itself; this is for runs in which a shard was given up.

    Exit codes: 0 all images are done; 1 some failed or were not reached, or a shard has not finished; 2 OUT
    is not an output directory; 4 a run is using it; 5 it cannot be written.
    """
    from ..outputs.bucket_store import open_store
    from ..runs import shards

    def note(text: str) -> None:
        print_message(text, show=not quiet)

    merged = shards.merge(open_store(output), wait, note)
    if merged.not_ended:
        names = ", ".join(map(str, merged.not_ended[:10])) + (" …" if len(merged.not_ended) > 10 else "")
        note(f"{len(merged.not_ended)} of {merged.shards} shards have not finished: {names}")
    left = f", {merged.left} left" if merged.left else ""
    images = counted(merged.done + merged.failed + merged.left, "image")
    note(f"merged: {images}: {merged.done} done, {merged.failed} failed{left}; see {merged.output}")
    if as_json:
        print_object(merged.as_json())
    raise typer.Exit(merged.exit_code)
