"""What a journal's reader needs of each line, without building the whole record."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from .record import Record

_TEXT = rb'"[ !#-\[\]-~]*"'
_NUMBER = rb"-?[0-9]+(?:\.[0-9]+)?"
# A line as `to_line` writes it for a photo without an error and with plain names: nearly every line.
_PLAIN = re.compile(
    rb'\{"image": "([ !#-\[\]-~]*)", "source": TEXT, "path": TEXT, "status": "(ok|gone)", '
    rb'"width": (?:[0-9]+|null), "height": (?:[0-9]+|null), '
    rb'"classes": \{(?:"[0-9]+": [0-9]+(?:, (?!\}))?)*\}, '
    rb'"outputs": \[(?:"([ !#-\[\]-~]*)")?\], "output_bytes": \[(?:[0-9]+(?:, (?!\]))?)*\], '
    rb'"looks": \{(?:TEXT: TEXT(?:, (?!\}))?)*\}, "device": (?:TEXT|null), "precision": (?:TEXT|null), '
    rb'"mean_confidence": (?:NUMBER|null), "finished": TEXT, "size_bytes": (?:[0-9]+|null), '
    rb'"mtime_ns": (?:-?[0-9]+|null), "seconds": NUMBER, "notes": \[\], "error": null, '
    rb'"fingerprint": TEXT\}'.replace(b"TEXT", _TEXT).replace(b"NUMBER", _NUMBER)
)


@dataclass(frozen=True, slots=True)
class RecordOutline:
    """The image of a record, its status and its output files; see `Record`."""

    image: str
    status: str
    outputs: tuple[str, ...]


def read_outline(line: bytes) -> RecordOutline | Record:
    """Read a line of a journal, with or without its line end.

    Raises
    ------
    KeyError, TypeError, ValueError, AttributeError
        The line is damaged.
    """
    plain = _PLAIN.fullmatch(line.rstrip(b"\n"))
    if plain is None:
        return Record.from_json(json.loads(line))
    image, status, outputs = plain.groups(b"")
    return RecordOutline(
        image.decode(), status.decode(), tuple(outputs.decode().split('", "')) if plain[3] is not None else ()
    )
