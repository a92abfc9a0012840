"""The record of what is done: one JSON object a line in ``manifest.jsonl``, the last one of an image wins."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from . import storage
from .errors import Failure, FailureKind, RequestError

JOURNAL_FILE = "manifest.jsonl"


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of one image.

    `image` is its name, `source` how the user's input led to it. `width` and `height` are the upright
    photo's, in pixels; `classes` maps class index → pixels; `outputs` are paths relative to the output
    directory, `output_bytes` their sizes in the same order. `seconds` is decoding, network and encoding
    together. `size_bytes` and `mtime_ns` are the input file's, None when there was none.
    """

    image: str
    source: str
    status: str
    fingerprint: str
    size_bytes: int | None
    mtime_ns: int | None
    width: int | None = None
    height: int | None = None
    classes: dict[int, int] | None = None
    outputs: tuple[str, ...] = ()
    output_bytes: tuple[int, ...] = ()
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    error: Failure | None = None

    @property
    def ok(self) -> bool:
        """Whether the image has its outputs."""
        return self.status == "ok"

    @property
    def size(self) -> tuple[int | None, int | None]:
        """The upright photo's (width, height)."""
        return self.width, self.height

    def as_json(self) -> dict[str, Any]:
        """Return the record as it stands in the journal."""
        return {
            "image": self.image,
            "source": self.source,
            "status": self.status,
            "width": self.width,
            "height": self.height,
            "classes": {str(index): pixels for index, pixels in sorted((self.classes or {}).items())},
            "outputs": list(self.outputs),
            "output_bytes": list(self.output_bytes),
            "size_bytes": self.size_bytes,
            "mtime_ns": self.mtime_ns,
            "seconds": round(self.seconds, 3),
            "notes": list(self.notes),
            "error": {"kind": self.error.kind, "message": self.error.message} if self.error else None,
            "fingerprint": self.fingerprint,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Record:
        """Read a record; KeyError, TypeError or ValueError when it is none."""
        error = value["error"]
        return cls(
            image=value["image"],
            source=value["source"],
            status=value["status"],
            fingerprint=value["fingerprint"],
            size_bytes=value["size_bytes"],
            mtime_ns=value["mtime_ns"],
            width=value["width"],
            height=value["height"],
            classes={int(index): pixels for index, pixels in value["classes"].items()},
            outputs=tuple(value["outputs"]),
            output_bytes=tuple(value["output_bytes"]),
            seconds=value["seconds"],
            notes=tuple(value["notes"]),
            error=Failure(FailureKind(error["kind"]), error["message"]) if error else None,
        )


def to_line(value: dict[str, Any]) -> str:
    """Return one line of JSON, in ASCII, so that any file name survives any terminal or pipe."""
    return json.dumps(value, separators=(", ", ": "))


class Journal:
    """The journal of an output directory, replayed into memory and appended to by its one holder.

    An image whose output file has since been written for another image is no longer in it.

    Raises
    ------
    RequestError
        A line before the last is damaged.
    OSError
        As the system says.
    """

    def __init__(self, output: Path) -> None:
        self.path = output / JOURNAL_FILE
        # Lines, not records: a night's run keeps hundreds of thousands of them in memory.
        self._lines: dict[str, bytes] = {}
        self._owners: dict[str, str] = {}
        self._whole_bytes = 0
        self._line_count = 0
        self._stream: BinaryIO | None = None
        self._replay()

    def __iter__(self) -> Iterator[Record]:
        for image in sorted(self._lines):
            yield Record.from_json(json.loads(self._lines[image]))

    def get(self, image: str) -> Record | None:
        """Return the last record of an image."""
        line = self._lines.get(image)
        return Record.from_json(json.loads(line)) if line is not None else None

    def owner(self, output: str) -> str | None:
        """Return the image whose record names this output file."""
        return self._owners.get(output)

    @property
    def size_bytes(self) -> int:
        """The length of the journal's whole lines."""
        return self._whole_bytes

    def mend(self) -> None:
        """Cut off a torn last line, so that every line of the file is whole; for the directory's holder."""
        with contextlib.suppress(FileNotFoundError), self.path.open("r+b") as stream:
            if stream.seek(0, os.SEEK_END) > self._whole_bytes:
                stream.truncate(self._whole_bytes)
                os.fsync(stream.fileno())

    def _open(self) -> BinaryIO:
        """Get ready to append; a file of mostly superseded lines is rewritten first."""
        if self._line_count > 2 * len(self._lines) + 100:
            self._compact()
        new = not self.path.exists()
        stream = self.path.open("ab")
        if new:
            storage.sync_folders([self.path.parent])
        return stream

    def append(self, records: Iterable[Record]) -> None:
        """Append records and return when they are on disk; their output files must be there before."""
        pairs = [(record, to_line(record.as_json()).encode("ascii")) for record in records]
        if not pairs:
            return
        data = b"".join(line + b"\n" for _, line in pairs)
        self._stream = self._stream or self._open()
        self._stream.write(data)
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._whole_bytes += len(data)
        for record, line in pairs:
            self._remember(record, line)

    def close(self) -> None:
        """Stop appending."""
        if self._stream is not None:
            # A last flush can fail on a full disk; what counts was flushed and fsynced by `append`.
            with contextlib.suppress(OSError):
                self._stream.close()
            self._stream = None

    def _replay(self) -> None:
        try:
            stream = self.path.open("rb")
        except FileNotFoundError:
            return
        with stream:
            for number, line in enumerate(stream, 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    record = Record.from_json(json.loads(line))
                except (ValueError, KeyError, TypeError, AttributeError):
                    if not stream.read(1):
                        break
                    raise RequestError(
                        f"{self.path}: line {number} is damaged; delete that line to redo its image, "
                        "or use another --output"
                    ) from None
                self._whole_bytes += len(line)
                self._remember(record, line.rstrip(b"\n"))

    def _remember(self, record: Record, line: bytes) -> None:
        self._line_count += 1
        for output in record.outputs:
            previous = self._owners.get(output)
            if previous is not None and previous != record.image:
                self._forget(previous)
        self._forget(record.image)
        self._lines[record.image] = line
        for output in record.outputs:
            self._owners[output] = record.image

    def _forget(self, image: str) -> None:
        line = self._lines.pop(image, None)
        if line is not None:
            for output in json.loads(line)["outputs"]:
                if self._owners.get(output) == image:
                    del self._owners[output]

    def _compact(self) -> None:
        lines = [line + b"\n" for line in self._lines.values()]
        storage.write_whole(self.path, lambda stream: stream.writelines(lines))
        storage.sync_folders([self.path.parent])
        self._whole_bytes = sum(map(len, lines))
        self._line_count = len(lines)
