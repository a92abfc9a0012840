"""The record of one image (schema 2): a JSON object on a line of the journal."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from .. import __version__
from ..common import store_urls
from ..common.errors import Failure, FailureKind
from ..common.output_layout import is_output_file, output_type_of
from ..common.redaction import public_url, redacted
from ..inputs.discovery import Source
from .json_text import from_base64, name_fields, printable_utf8, seconds_of, to_base64, usable_name, utc_now

if TYPE_CHECKING:
    # It brings torch, which a run with nothing to do never imports.
    from ..inputs.decoder import DecodedImage

_CONTENT_KINDS = frozenset(
    {
        FailureKind.EMPTY_FILE,
        FailureKind.NOT_AN_IMAGE,
        FailureKind.TRUNCATED,
        FailureKind.BROKEN,
        FailureKind.TOO_MANY_PIXELS,
        FailureKind.NOT_FINITE,
    }
)
"""Failures whose cause is the image's content: they come again in the next run unless the image changes."""

DECODING_CHANGED_IN = "0.3.0"
"""The version that last began to read images which the ones before refused; records of 0.2.0 itself have no
version. A release that reads more images names itself here."""

Status = Literal["ok", "failed", "gone"]
# All code relies on these bounds. msgspec's own are those of 64 bits.
_Time = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Side = Annotated[int, Meta(ge=0, lt=10**9)]
_Class = Annotated[int, Meta(ge=0, le=255)]


# Not frozen, though it is never changed: a plan builds many. In the order of the line, which reads fastest.
class Record(msgspec.Struct, kw_only=True):
    """What the journal says of one image.

    `image` is its name, `source` the path as the user gave it, `path` its absolute path. `width` and `height`
    are the upright image's, in pixels; `classes` maps class index → pixels; `outputs` are paths relative to
    the output directory, `output_bytes` their sizes in the same order, `looks` maps an output type → its look
    (see `Writer.describe`). `device` and `precision` are the network's, `mean_confidence` (0 to 1) is known
    where it was computed. `seconds` is the sum of all stages, `finished` in UTC. `size_bytes`, `mtime_ns` and
    `etag` are the input file's, or None. `content` is the hash of its bytes (see `inputs.file_content`), or
    None for objects in stores, files that could not be read, and in records of 0.2. `version` is that of the
    fcn that segmented the image, or failed to; None in records of 0.2.
    """

    image: str
    source: str
    path: str
    status: Status
    width: _Side | None
    height: _Side | None
    classes: dict[_Class, _Count]
    outputs: tuple[str, ...]
    output_bytes: tuple[_Count, ...]
    looks: dict[str, str]
    device: str | None
    precision: str | None
    mean_confidence: float | None
    finished: str
    size_bytes: _Count | None
    mtime_ns: _Time | None
    etag: str | None = None
    content: str | None = None
    version: str | None = None
    seconds: float
    notes: tuple[str, ...]
    error: Failure | None
    fingerprint: str

    @property
    def ok(self) -> bool:
        """Whether the image has its output files."""
        return self.status == "ok"

    @property
    def size(self) -> tuple[int | None, int | None]:
        """The upright image's (width, height)."""
        return self.width, self.height

    def is_of(self, source: Source) -> bool:
        """Say whether the input file still has the recorded size, and ETag or time of change, if known."""
        known = self.size_bytes is None or self.mtime_ns is not None or self.etag is not None
        recorded = self.size_bytes, self.mtime_ns, self.etag
        return known and recorded == (source.size_bytes, source.mtime_ns, source.etag)

    def may_be_of(self, source: Source) -> bool:
        """Say whether only the input file's time differs from the recorded one: then `content` decides."""
        same_size = self.size_bytes is not None and self.size_bytes == source.size_bytes
        return same_size and None not in {self.content, self.mtime_ns, source.mtime_ns}

    def stays_failed(self, limit_of: Callable[[FailureKind], float | None]) -> bool:
        """Say whether the recorded failure will come again for an unchanged image.

        A version that reads more than the one that failed tries once more.

        Parameters
        ----------
        limit_of
            Returns this run's limit behind a kind of failure, or None where there is none.
        """
        if self.error is None or self.error.kind not in _CONTENT_KINDS:
            return False
        if self.version is None or _numbers(self.version) < _numbers(DECODING_CHANGED_IN):
            return False
        limit = limit_of(self.error.kind)
        return limit is None or self.error.limit is None or limit <= self.error.limit

    def without(self, names: Iterable[str]) -> Record:
        """Return this record without these output files."""
        dropped = set(names)
        kept = {n: size for n, size in self.output_sizes().items() if n not in dropped}
        types = {output_type_of(name) for name in kept}
        looks = {output_type: look for output_type, look in self.looks.items() if output_type in types}
        return replace(self, outputs=tuple(kept), output_bytes=tuple(kept.values()), looks=looks)

    def moved_to(self, source: Source) -> Record:
        """Return this record for the same image under another path."""
        return replace(self, path=store_urls.absolute(source.path), source=source.given)

    def renewed(self, source: Source) -> Record:
        """Return this record for an image whose file has the recorded content, with its time and path."""
        return replace(self.moved_to(source), mtime_ns=source.mtime_ns)

    def finished_seconds(self) -> float:
        """Return the time in `finished` in seconds since 1970, or 0 when it cannot be read."""
        return seconds_of(self.finished) or 0.0

    def output_sizes(self) -> dict[str, int]:
        """Return output path → size in bytes."""
        return dict(zip(self.outputs, self.output_bytes, strict=True))

    def as_json(self) -> dict[str, Any]:
        """Return the record as the journal has it; names that are not UTF-8 come with their bytes."""
        error = self.error
        value: dict[str, Any] = {
            **name_fields("image", self.image),
            **name_fields("source", self.source),
            **name_fields("path", self.path),
            "status": self.status,
            "width": self.width,
            "height": self.height,
            "classes": {str(index): pixels for index, pixels in sorted(self.classes.items())},
            "outputs": [printable_utf8(name) for name in self.outputs],
            "output_bytes": list(self.output_bytes),
            "looks": self.looks,
            "device": self.device,
            "precision": self.precision,
            "mean_confidence": self.mean_confidence,
            "finished": self.finished,
            "size_bytes": self.size_bytes,
            "mtime_ns": self.mtime_ns,
            **({"etag": printable_utf8(self.etag)} if self.etag is not None else {}),
            "content": self.content,
            "version": self.version,
            "seconds": round(self.seconds, 3),
            "notes": list(self.notes),
            "error": {
                "kind": error.kind,
                "message": printable_utf8(redacted(error.message)),
                "limit": error.limit,
            }
            if error
            else None,
            "fingerprint": self.fingerprint,
        }
        if any(printable_utf8(name) != name for name in self.outputs):
            value["output_names_bytes"] = [to_base64(name) for name in self.outputs]
        return value

    @classmethod
    def from_line(cls, line: bytes) -> Record:
        """Read a line of a journal, with or without its line end; raise ValueError when it is damaged.

        A journal may come from anybody. What this accepts has the types and the bounds that all code relies
        on, and no name that leads out of its output directory.
        """
        try:
            record = _decode(line)
            # Only beside a name with escapes are there its bytes, and only such a line has names to refuse.
            if b"\\" in line or not line.isascii():
                _restore_names(record, _decode_names(line))
        except RecursionError:
            raise ValueError("nested too deeply") from None
        if len(record.outputs) != len(record.output_bytes):
            raise ValueError(record.outputs)
        for name in record.outputs:
            if not is_output_file(name):
                raise ValueError(name)
        # Those of an earlier version may have more of a URL.
        if "://" in record.source:
            record.source = _written_down(record.source)
        if "://" in record.path:
            record.path = _written_down(record.path)
        if record.error is not None and not _is_in_bounds(record.error.limit):
            raise ValueError(record.error.limit)
        return record


class _NamesInBytes(msgspec.Struct):
    """What a line has beside names that are not UTF-8: their bytes in base64; see `name_fields`."""

    image_bytes: str | None = None
    source_bytes: str | None = None
    path_bytes: str | None = None
    output_names_bytes: tuple[str, ...] | None = None


_decode = msgspec.json.Decoder(Record).decode
_decode_names = msgspec.json.Decoder(_NamesInBytes).decode


def _restore_names(record: Record, names: _NamesInBytes) -> None:
    for key in ("image", "source", "path"):
        if (data := getattr(names, f"{key}_bytes")) is not None:
            setattr(record, key, from_base64(data))
    if names.output_names_bytes is not None:
        record.outputs = tuple(map(from_base64, names.output_names_bytes))
    for name in (record.image, record.source, record.path, *record.outputs):
        usable_name(name)


def _is_in_bounds(limit: float | None) -> bool:
    return limit is None or abs(limit) < 10**19


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)[:3]]


@dataclass(frozen=True, slots=True)
class Written:
    """What was written for one image, as it goes into the image's record.

    `sizes` maps the path of each file → its size in bytes; `looks` maps output type → look. `seconds` is how
    long it took to count and encode. The rest is as in `Record`.
    """

    width: int
    height: int
    classes: dict[int, int]
    sizes: Mapping[str, int]
    looks: Mapping[str, str]
    mean_confidence: float | None
    seconds: float


def begin(
    source: Source,
    fingerprint: str,
    image: DecodedImage | None = None,
    *,
    device: str | None = None,
    precision: str | None = None,
    seconds: float = 0.0,
) -> Record:
    """Return the record with which work on an image begins, without output files; `finish` completes it.

    Parameters
    ----------
    source
        The image.
    fingerprint
        Of the run's settings.
    image
        The decoded image: the size and time of the file that was decoded count, and its notes. Without it,
        the size and time of the source count.
    device, precision, seconds
        Of the network, and the time that decoding and the network took.
    """
    file = source if image is None else image
    return Record(
        image=source.image,
        source=source.given,
        path=store_urls.absolute(source.path),
        status="ok",
        width=None,
        height=None,
        classes={},
        outputs=(),
        output_bytes=(),
        looks={},
        device=device,
        precision=precision,
        mean_confidence=None,
        finished="",
        size_bytes=file.size_bytes,
        mtime_ns=file.mtime_ns,
        etag=file.etag,
        content=image.content if image is not None else None,
        version=__version__,
        seconds=seconds,
        notes=image.notes if image is not None else (),
        error=None,
        fingerprint=fingerprint,
    )


def finish(record: Record, result: Written | Failure) -> Record:
    """Return the record with which work on an image ends: every record in a journal, done or failed, is one.

    Parameters
    ----------
    record
        From `begin`, or the image's earlier record, to which output files are added.
    result
        What was written, or why the image has no output files.
    """
    if isinstance(result, Failure):
        # What the image and its file are stays known; what a network made of it does not.
        return replace(
            record,
            status="failed",
            width=None,
            height=None,
            classes={},
            outputs=(),
            output_bytes=(),
            looks={},
            device=None,
            precision=None,
            mean_confidence=None,
            version=__version__,
            finished=utc_now(),
            seconds=0.0,
            notes=(),
            error=result,
        )
    sizes = {**record.output_sizes(), **result.sizes}
    return replace(
        record,
        width=result.width,
        height=result.height,
        classes=result.classes,
        outputs=tuple(sizes),
        output_bytes=tuple(sizes.values()),
        looks={**record.looks, **result.looks},
        mean_confidence=record.mean_confidence if result.mean_confidence is None else result.mean_confidence,
        finished=utc_now(),
        seconds=record.seconds + result.seconds,
    )


def _written_down(path: str) -> str:
    return public_url(path) if store_urls.is_url(path) else path


def gone(record: Record) -> Record:
    """Return the record that replaces the one of an image that was removed.

    It names the files to delete, so that the next run can delete them if this one is killed first.
    """
    return replace(record, status="gone", finished=utc_now(), error=None)
