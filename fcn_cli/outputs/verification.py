"""Verification: every recorded file exists, is complete, and matches its record."""

from __future__ import annotations

import io
import os
import stat
import zlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from ..common import files, limits, resources
from ..common.errors import ExitCode, RequestError
from ..common.label_map import too_many_pixels
from ..common.limits import MOST_MASK_PIXELS
from ..common.ordered_work import OrderedWork
from ..common.output_layout import (
    CUTOUT,
    DEFAULT_OUTPUT_TYPES,
    GEOTIFF,
    HOLDER_FILE,
    JOURNAL_FILE,
    LOGITS,
    label_types,
    output_type_names,
    output_type_of,
)
from ..common.processes import ProcessIdentity
from ..common.shard import shard_files
from ..inputs import decoder
from . import legend
from .journal import JournalSnapshot
from .json_text import name_fields
from .lock import Holder
from .looks import is_cropped, is_palette
from .output_store import LocalStore
from .record import Record
from .run_file import read_any_run
from .writers import has_legend

_MOST_BYTES = 2 << 30
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MODES = {"masks": "L", "color": "P", "overlay": "RGB", "confidence": "L", "geotiff": "L"}
_CUTOUT_MODES = {"RGBA", "RGB"}
# `Record.mean_confidence` has four decimals.
_MEAN_SLACK = 1.01e-4

_AFTER_DAMAGE = "the same fcn segment command drops them and redoes their images"


class Progress(Protocol):
    """Is told the progress of a verification."""

    def begin(self, total: int) -> None:
        """Be told the number of images."""

    def step(self, *, failed: bool = False) -> None:
        """Be told that an image's files are checked."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one file, and what to do; `image` is its image's name, empty for the journal."""

    image: str
    file: str
    damage: str
    remedy: str

    def as_json(self) -> dict[str, Any]:
        """Return the problem by name."""
        return {
            **name_fields("image", self.image),
            **name_fields("file", self.file),
            "damage": self.damage,
            "remedy": self.remedy,
        }


@dataclass
class Verification:
    """The result: how many images with files, and files, were checked, and what is wrong with them.

    `orphans` are files in the directories of output types that no record names; they do not count as
    problems. `run` is a process that wrote into the directory meanwhile: then there are no orphans, because
    files come before their records, and the check is of what was recorded when it began.
    """

    output: Path
    images: int = 0
    files: int = 0
    problems: list[Problem] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    run: ProcessIdentity | None = None

    @property
    def exit_code(self) -> int:
        """The exit code of the process."""
        return ExitCode.SOME_FAILED if self.problems else ExitCode.OK

    def as_json(self) -> dict[str, Any]:
        """Return the result by name."""
        return {
            "photos": self.images,
            "files": self.files,
            "problems": [problem.as_json() for problem in self.problems],
            "orphans": [name_fields("file", name) for name in self.orphans],
            "running": self.run is not None,
        }


def verify(output: Path, progress: Progress, max_pixels: int = MOST_MASK_PIXELS) -> Verification:
    """Check every file of every record, in as many threads as there are CPUs.

    A run may write meanwhile: what seems wrong is checked once more against the records at the end.

    Raises
    ------
    RequestError
        It is no output directory, or the journal or a directory cannot be read.
    """
    decoder.prepare_process(max_pixels)
    result = Verification(output, run=_writer(output))
    run = read_any_run(output)
    checker = _Checker(output, run.types if run is not None else None)
    promised = array("q")
    with JournalSnapshot(output) as records:
        progress.begin(len(records))
        for record, problems in checker.check(_noting(records, promised)):
            result.images += bool(record.outputs)
            result.files += len(record.outputs)
            result.problems += problems
            progress.step(failed=bool(problems))
        result.orphans = _find_orphans(output, np.sort(np.frombuffer(promised, np.int64)))
        result.run = result.run or _writer(output)
        if result.run is not None:
            result.orphans = []
        if (result.problems or result.orphans) and not records.is_current:
            _check_again(result, checker)
        if records.damaged:
            damage = f"damaged lines: {records.damaged}"
            result.problems.append(Problem("", JOURNAL_FILE, damage, _AFTER_DAMAGE))
    return result


def _writer(output: Path) -> ProcessIdentity | None:
    """Return a process that holds the directory or a shard of it, and is not known to be dead."""
    shards = [None, *(shard for shard, _ in shard_files(output, HOLDER_FILE))]
    holders = filter(None, (Holder.read(output, shard) for shard in shards))
    return next((one.process for one in holders if one.process.is_alive() is not False), None)


def _check_again(result: Verification, checker: _Checker) -> None:
    doubtful = {problem.image for problem in result.problems}
    promised = array("q")
    with JournalSnapshot(result.output) as records:
        again = (record for record in _noting(records, promised) if record.image in doubtful)
        result.problems = [problem for _, problems in checker.check(again) for problem in problems]
    names = set(promised)
    result.orphans = [name for name in result.orphans if hash(name) not in names]


def _noting(records: Iterable[Record], promised: array[int]) -> Iterator[Record]:
    """Yield records, and note the hashes of their output files."""
    for record in records:
        promised.extend(map(hash, record.outputs))
        yield record


class _Checker:
    """Checks the files of records in threads; `types` are those that the last run wrote, if that is known."""

    def __init__(self, output: Path, types: tuple[str, ...] | None) -> None:
        self._store = LocalStore(output)
        self._types = types

    def check(self, records: Iterable[Record]) -> Iterator[tuple[Record, list[Problem]]]:
        """Yield each record with what is wrong with its files, in order."""
        # What waits are records only, of no size.
        with OrderedWork[Record, list[Problem]](resources.cpu_count(), "fcn-verify", max_bytes=0) as work:
            for record in records:
                work.submit(record, partial(self._check_one, record))
                for task in work.take():
                    yield task.key, task.future.result()
            for task in work.take(everything=True):
                yield task.key, task.future.result()

    def _check_one(self, record: Record) -> list[Problem]:
        damages = {
            name: find_damage(self._store, name, size, record) for name, size in record.output_sizes().items()
        }
        return [
            Problem(record.image, name, damage, self._remedy(record, name, record.output_sizes()[name]))
            for name, damage in damages.items()
            if damage is not None
        ]

    def _remedy(self, record: Record, name: str, size: int) -> str:
        if "://" not in record.path and not os.path.lexists(record.path):
            return f"its image is gone from {record.path}; restore the image or this file"
        output_type = output_type_of(name)
        command = "the same fcn segment command"
        # What the last command asked for need not be in run.json, if it found nothing to do.
        if self._types is None or output_type not in self._types or output_type not in DEFAULT_OUTPUT_TYPES:
            command += f", with --write {output_type},"
        # A run looks at existence and size only.
        seems_whole = self._store.has_size(name, size)
        return f"delete it; then {command} makes it again" if seems_whole else f"{command} makes it again"


def _find_orphans(output: Path, promised: NDArray[np.int64]) -> list[str]:
    """Return files in the directories of output types whose names' hashes are not among these; sorted."""

    def failed(directory: str, error: OSError) -> None:
        raise RequestError(f"{directory}: cannot be listed ({error.strerror})") from None

    orphans = []
    for output_type in sorted(output_type_names()):
        if not (output / output_type).is_dir():
            continue
        # What is behind a link is not of this directory.
        for directory, names in files.walk(
            str(output / output_type), lambda *_: True, failed, os.path.islink
        ):
            relative = os.path.relpath(directory, output).replace(os.sep, "/")
            # Hidden files are a run's temporary ones, or the system's.
            found = [f"{relative}/{name}" for name in names if not name.startswith(".")]
            known = np.isin(np.fromiter(map(hash, found), np.int64, len(found)), promised)
            orphans += [name for name, has_record in zip(found, known, strict=True) if not has_record]
    return orphans


def find_damage(output: LocalStore, name: str, size: int, record: Record) -> str | None:
    """Return what is wrong with an output file, or None when it is as its record says.

    Every byte of a PNG counts, because all its chunks have checksums. JPEG has none: a flipped byte is found
    only when the file no longer decodes.
    """
    try:
        status = output.safe_path(name).lstat()
        if not stat.S_ISREG(status.st_mode):
            return "not a regular file"
        if status.st_size != size:
            return f"{status.st_size} bytes, its record says {size}"
        # A record may claim any size; what is larger is damaged, whatever it is.
        data = (output / name).read_small(min(_MOST_BYTES, limits.most_bytes(_pixels(record))))
    except FileNotFoundError:
        return "missing"
    except (OSError, ValueError) as error:
        return f"cannot be read ({error.strerror if isinstance(error, OSError) else error})"
    if name.endswith(".png") and (damage := _png_damage(data)):
        return damage
    try:
        if output_type_of(name) == LOGITS:
            logits = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
            is_right = logits.dtype == np.float16 and logits.ndim == 3
            return None if is_right else f"{logits.dtype} of shape {logits.shape}, not float16 logits"
        return _pixel_damage(data, output_type_of(name), record)
    except Exception as error:  # noqa: BLE001 - decoders raise anything on broken data
        return f"cannot be decoded ({error})"


def _pixels(record: Record) -> int:
    return (record.width or 0) * (record.height or 0)


def _png_damage(data: bytes) -> str | None:
    """Check the signature and the CRC of every chunk; Pillow checks only those before the pixels."""
    if not data.startswith(_PNG_SIGNATURE):
        return "not a PNG file"
    place = len(_PNG_SIGNATURE)
    while place < len(data):
        length = int.from_bytes(data[place : place + 4])
        end = place + 8 + length
        if end + 4 > len(data):
            return f"damaged: the PNG chunk at byte {place} is cut off"
        if zlib.crc32(data[place + 4 : end]) != int.from_bytes(data[end : end + 4]):
            return f"damaged: the checksum of the PNG chunk at byte {place} does not match"
        if data[place + 4 : place + 8] == b"IEND":
            return (
                None if end + 4 == len(data) else f"damaged: data after the end of the PNG at byte {end + 4}"
            )
        place = end + 4
    return "damaged: the PNG has no end"


def _pixel_damage(data: bytes, output_type: str, record: Record) -> str | None:
    # Without Pillow's own limit on pixels, which `Image.open` applies.
    opened = TiffImageFile if output_type == GEOTIFF else JpegImageFile
    with (PngImageFile if data.startswith(_PNG_SIGNATURE) else opened)(io.BytesIO(data)) as image:
        # Checked before anything is decoded: a damaged header may ask for any amount of memory.
        if not _has_right_size(image, output_type, record):
            return f"{image.width}x{image.height} pixels, its record says {record.width}x{record.height}"
        if problem := too_many_pixels(image.size):
            return problem
        if output_type == CUTOUT and image.mode not in _CUTOUT_MODES:
            return f"{image.mode} pixels, {output_type} has RGBA or RGB"
        if image.mode != _MODES.get(output_type, image.mode):
            return f"{image.mode} pixels, {output_type} has {_MODES[output_type]}"
        image.load()
        if image.mode == "P" and (damage := _palette_damage(image, record.looks.get(output_type))):
            return damage
        if output_type in label_types() or output_type == GEOTIFF:
            found = {index: count for index, count in enumerate(image.histogram()) if count}
            return None if found == record.classes else _class_damage(found, record.classes or {})
        if output_type == "confidence" and record.mean_confidence is not None:
            total = sum(value * count for value, count in enumerate(image.histogram()))
            mean = total / 255 / (image.width * image.height)
            if abs(mean - record.mean_confidence) > _MEAN_SLACK:
                return f"mean confidence {mean:.4f}, its record says {record.mean_confidence:.4f}"
    return None


def _palette_damage(image: Image.Image, look: str | None) -> str | None:
    if look is None or is_palette(look, bytes(image.getpalette("RGB") or ())):
        return None
    return f"the colours are not those of the palette {look} that its record names"


def _has_right_size(image: Image.Image, output_type: str, record: Record) -> bool:
    if has_legend(record.looks.get(output_type)) and record.width is not None and record.height is not None:
        # An image of nothing but background has none.
        most = legend.largest((record.width, record.height), len(record.classes or ()))
        return record.width <= image.width <= most[0] and record.height <= image.height <= most[1]
    if is_cropped(record.looks.get(output_type)) and record.width is not None and record.height is not None:
        return image.width <= record.width and image.height <= record.height
    return image.size == record.size


def _class_damage(found: dict[int, int], recorded: dict[int, int]) -> str:
    differing = sorted(index for index in {*found, *recorded} if found.get(index) != recorded.get(index))
    first = differing[0]
    more = f" (and {len(differing) - 1} more classes differ)" if len(differing) > 1 else ""
    return f"{found.get(first, 0)} pixels of class {first}, its record says {recorded.get(first, 0)}{more}"
