"""What all export formats share: their interface, unique names, atomic directories, JPEGs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import unicodedata
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from PIL import Image

from ...common import files, store_urls
from ...common.errors import FailureKind, ImageError, OutputLost, RequestError
from ...common.label_map import LabelMap, most_pixels
from ...inputs import jpeg, workers
from ...inputs.collisions import folded
from ...inputs.samples import Rendering
from ...outputs.looks import CutoutStyle
from ...outputs.record import Record


@dataclass(frozen=True)
class Destination:
    """Where an export goes, and what it is of.

    Parameters
    ----------
    path
        The file or directory to write.
    overwrite
        Replace an earlier export there.
    class_names
        By class index.
    background
        The index of the class that is no region, as void is none; None where there is none.
    rendering
        How the images become RGB.
    cutout
        How cutouts look.
    parts, polygons
        Of COCO: each connected part of a class is a region, and a polygon where it has no hole.
    """

    path: Path
    overwrite: bool
    class_names: Sequence[str]
    background: int | None
    rendering: Rendering
    cutout: CutoutStyle
    parts: bool = False
    polygons: bool = False


Results = Generator[Any, None, None]
"""Yields the results of an exporter's jobs that succeeded, in order."""


class Exporter(Protocol):
    """One format. The result of `job` is for `write` alone."""

    def __init__(self, destination: Destination) -> None:
        """Check the destination; raises RequestError when it must not be written."""

    def job(self, record: Record) -> Callable[[LabelMap], Any]:
        """Return what to do with an image's label map, in a thread; called in order, in one thread.

        The function returned raises ImageError when the image cannot be exported, and OutputLost.
        """
        ...

    def write(self, results: Results) -> None:
        """Write the results of all jobs, which come as they are done, in order.

        Jobs begin with the first result that is asked for. Closing `results` waits for those that run; so it
        comes before what they wrote is removed. When this returns, the export is under its final name; when
        it raises, nothing new is.

        Raises
        ------
        OutputLost
            The destination cannot be written.
        """


_LONGEST = 180
"""Bytes of a name without number and suffix; file systems take 255."""


class UniqueNames:
    """Turns images' names into file names without suffix; keeps 64-bit hashes of those that are given."""

    def __init__(self) -> None:
        self._given: set[int] = set()

    def unique(self, image: str) -> str:
        """Return a name for an image that no other image has got: ``sub/a cat.jpg`` becomes ``sub_a_cat``.

        Letters and digits of any script, ``-``, ``_`` and ``.`` stay. A name that is taken, whatever its
        upper and lower case, gets a number: ``sub_a_cat_2``.
        """
        plain = unicodedata.normalize("NFC", str(PurePosixPath(image).with_suffix("")))
        safe = re.sub(r"[^\w.-]", "_", plain.encode("utf-8", "replace").decode())
        # A leading dot hides a file, a leading hyphen makes it an option.
        safe = re.sub(r"^[.-]", "_", safe)
        safe = safe.encode()[:_LONGEST].decode(errors="ignore") or "_"
        name, number = safe, 1
        while hash(folded(name)) in self._given:
            number += 1
            name = f"{safe}_{number}"
        self._given.add(hash(folded(name)))
        return name


MARKER_FILE = ".fcn-export.json"
"""Says that `fcn export` wrote a directory, so that ``--overwrite`` may remove it."""


def check_destination(path: Path, *, overwrite: bool) -> None:
    """Check that a directory may be written: it is missing, empty, or an earlier export to overwrite.

    Raises
    ------
    RequestError
        It may not.
    """
    if not os.path.lexists(path):
        return
    if not path.is_dir() or path.is_symlink():
        raise RequestError(f"--output {path}: is not a directory; give a new one")
    if not any(path.iterdir()):
        return
    if not (path / MARKER_FILE).is_file():
        raise RequestError(
            f"--output {path}: holds files that fcn export did not write; give a new directory"
        )
    if not overwrite:
        raise RequestError(f"--output {path}: exists; give another one, or --overwrite to replace it")


@contextlib.contextmanager
def building(path: Path, format_name: str, *, overwrite: bool) -> Iterator[Path]:
    """Return a temporary directory that takes the place of `path` when the context ends without an error.

    Raises
    ------
    RequestError
        Meanwhile something has come to `path` that must not be replaced.
    OutputLost
        The directory cannot be made or renamed; as with any other error, nothing of it stays.
    """
    with OutputLost.when_refused(path):
        files.make_directories(path.parent)
        new = files.temporary_in(path.parent)
        new.mkdir()
    try:
        with OutputLost.when_refused(path):
            (new / MARKER_FILE).write_text(json.dumps({"format": format_name}) + "\n")
            yield new
            _put_in_place(new, path, overwrite=overwrite)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _put_in_place(new: Path, path: Path, *, overwrite: bool) -> None:
    if hasattr(os, "sync"):
        # One for all files: an fsync for each takes hours for a million images.
        os.sync()
    # An export takes hours, in which somebody may put something there.
    check_destination(path, overwrite=overwrite)
    old = files.temporary_in(path.parent)
    with contextlib.suppress(FileNotFoundError):
        path.rename(old)
    try:
        new.rename(path)
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        else:
            # Another export has come first.
            shutil.rmtree(old, ignore_errors=True)
        raise
    files.sync_directories([path.parent])
    shutil.rmtree(old, ignore_errors=True)


_JPEG_SIGNATURE = b"\xff\xd8\xff"
_QUALITY = 95
_AGAIN = "segment it again"
_APP0, _APP14, _APP15, _COMMENT = 0xE0, 0xEE, 0xEF, 0xFE
_JFIF, _ADOBE = b"JFIF\0", b"Adobe"


def write_upright_jpeg(record: Record, target: Path, rendering: Rendering) -> None:
    """Write the image of a record as a JPEG that lies as its mask does, for those who may read the image.

    Of a JPEG in sRGB that needs no turning the pixels stay as they are coded; anything else is decoded.

    Raises
    ------
    ImageError
        The image is gone, has changed since it was segmented, or cannot be decoded.
    OutputLost
        The file cannot be written.
    """
    data = _read_unchanged(record, _JPEG_SIGNATURE)
    measured = workers.measure(record.path, most_pixels())
    if measured.size != record.size:
        raise ImageError(FailureKind.CHANGED, f"{record.path}: has another size than its mask; {_AGAIN}")
    bare = without_metadata(data) if measured.turn == 1 and measured.is_srgb else None
    image = None if bare else workers.decode_for_people(record.path, most_pixels(), rendering).image
    with OutputLost.when_refused(target), files.create(target, files.permissions_of(record.path)) as stream:
        if bare is not None:
            stream.write(bare)
        elif image is not None:
            # Comment and EXIF are those of the original's pixels.
            image.info.clear()
            image.save(stream, "JPEG", quality=_QUALITY, subsampling=0)


def decode_unchanged(record: Record, rendering: Rendering) -> Image.Image:
    """Return the image of a record in sRGB, as its mask lies; raises ImageError as `write_upright_jpeg`."""
    _read_unchanged(record)
    image = workers.decode_for_people(record.path, most_pixels(), rendering).image
    if image.size != record.size:
        raise ImageError(FailureKind.CHANGED, f"{record.path}: has another size than its mask; {_AGAIN}")
    return image


def _read_unchanged(record: Record, signature: bytes | None = None) -> bytes:
    """Return the content of a record's file if it begins with a signature, else nothing of use.

    Raises ImageError where the file is gone or has changed since it was segmented.
    """
    if store_urls.is_url(record.path):
        raise ImageError(FailureKind.NOT_FOUND, f"{record.path}: not on this machine")
    try:
        with open(files.open_regular(record.path, follow=True), "rb") as stream:
            status = os.fstat(stream.fileno())
            data = stream.read(len(signature or b""))
            if data == signature:
                data += stream.read(status.st_size)
    except FileNotFoundError:
        raise ImageError(FailureKind.NOT_FOUND, f"{record.path}: the image is gone") from None
    except files.UnfitFile:
        raise ImageError(FailureKind.NOT_A_FILE, f"{record.path}: not a regular file") from None
    except OSError as error:
        raise ImageError(
            FailureKind.UNREADABLE, f"{record.path}: cannot be read ({error.strerror})"
        ) from None
    if (status.st_size, status.st_mtime_ns) != (record.size_bytes, record.mtime_ns):
        raise ImageError(FailureKind.CHANGED, f"{record.path}: changed since it was segmented; {_AGAIN}")
    return data


def without_metadata(data: bytes) -> bytes | None:
    """Return the coded pixels of a JPEG and what decodes them, or None where that cannot be told.

    What programs and cameras add goes: EXIF with its place and thumbnail, profiles, comments, further
    pictures and whatever stands behind the end.
    """
    if not data.startswith(_JPEG_SIGNATURE):
        return None
    parts, scan_end = [data[:2]], None
    try:
        for marker, start, end in jpeg.segments(data):
            begin = start - (2 if marker == jpeg.END else 4)
            if scan_end is not None:
                parts.append(data[scan_end:begin])
            scan_end = end if marker == jpeg.SCAN else None
            content = data[start:end]
            if marker == _APP0 and content.startswith(_JFIF) and len(parts) == 1:
                # Without its thumbnail.
                parts.append(b"\xff\xe0\x00\x10" + content[:12].ljust(12, b"\0") + b"\0\0")
            elif marker == _APP14 and content.startswith(_ADOBE):
                # It says whether colours are RGB, YCbCr, CMYK or YCCK.
                parts.append(b"\xff\xee\x00\x0e" + content[:12].ljust(12, b"\0"))
            elif not (_APP0 <= marker <= _APP15 or marker == _COMMENT):
                parts.append(data[begin:end])
            if marker == jpeg.END:
                return b"".join(parts)
    except EOFError:
        return None
    return None
