"""What a journal's reader needs of each line, without building the whole record."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from ..common.output_layout import KINDS
from .record import Record

# A line as `to_line` writes it for a photo without an error and with plain names: nearly every line. All
# others are read as JSON, which takes several times as long.
_PARTS = {
    "texts": r"(?:TEXT(?:, TEXT)*)?",
    "FILE": "(?:" + "|".join(rf"{kind.name}/CHARS\{kind.suffix}" for kind in KINDS) + ")",
    "TEXT": r'"CHARS"',
    "CHARS": r"[ !#-\[\]-~]*",
    "NUMBER": r"COUNT(?:\.[0-9]+)?",
    "COUNT": r"(?:0|[1-9][0-9]{0,18})",
    "SIDE": r"(?:0|[1-9][0-9]{0,8})",
    "INDEX": r"(?:[1-9]?[0-9]|1[0-9][0-9]|2[0-4][0-9]|25[0-5])",
}
_LINE = (
    r'\{"image": "(CHARS)", "source": TEXT, "path": TEXT, "status": "(ok|gone)", '
    r'"width": (?:SIDE|null), "height": (?:SIDE|null), '
    r'"classes": \{(?:"INDEX": COUNT(?:, "INDEX": COUNT)*)?\}, '
    r'"outputs": \[(?:"(FILE(?:", "FILE)*)")?\], "output_bytes": \[((?:COUNT(?:, COUNT)*)?)\], '
    r'"looks": \{(?:TEXT: TEXT(?:, TEXT: TEXT)*)?\}, "device": (?:TEXT|null), '
    r'"precision": (?:TEXT|null), '
    r'"mean_confidence": (?:NUMBER|null), "finished": TEXT, "size_bytes": (?:COUNT|null), '
    r'"mtime_ns": (?:COUNT|null), (?:"etag": TEXT, )?'
    r'(?:"content": (?:TEXT|null), "version": (?:TEXT|null), )?'
    r'"seconds": NUMBER, "notes": \[texts\], "error": null, '
    r'"fingerprint": TEXT\}'
)
for _name, _part in _PARTS.items():
    _LINE = _LINE.replace(_name, _part)
_PLAIN = re.compile(_LINE.encode())
_decode = json.JSONDecoder().decode


class RecordOutline(NamedTuple):
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
        return read_record(line)
    image, status, outputs, sizes = plain.groups(b"")
    if b"/." in outputs or b"//" in outputs:
        # Hidden, or a name that leads elsewhere.
        return read_record(line)
    names = tuple(outputs.decode().split('", "')) if outputs else ()
    if len(names) != (sizes.count(b",") + 1 if sizes else 0):
        raise ValueError(names)
    return RecordOutline(image.decode(), status.decode(), names)


def read_record(line: bytes) -> Record:
    """Read the record on a line of a journal; raises what `read_outline` raises."""
    # `json.loads` looks for the encoding first, and a journal is in ASCII.
    try:
        return Record.from_json(_decode(line.decode()))
    except RecursionError:
        raise ValueError("nested too deeply") from None
