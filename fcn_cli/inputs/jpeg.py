"""The segments of a JPEG file (ITU-T T.81)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
PROGRESSIVE = frozenset({0xC2, 0xCA})
LOSSLESS = frozenset({0xC3, 0xC7, 0xCB, 0xCF})
HIERARCHICAL = frozenset({0xC5, 0xC6, 0xCD, 0xCE})
LS_FRAME = 0xF7
END, SCAN, QUANTIZERS = 0xD9, 0xDA, 0xDB

# In entropy-coded data 0xFF is followed by 0, or by the number of a restart.
_AFTER_SCAN = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")


class Segment(NamedTuple):
    """A segment of a JPEG's headers: its marker, and where its content is."""

    marker: int
    start: int
    end: int


def segments(data: bytes) -> Iterator[Segment]:
    """Yield the segments of a JPEG up to its end marker; entropy-coded data are between them."""
    place = 2
    while place + 2 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        if marker == END:
            yield Segment(marker, place + 2, place + 2)
            return
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4])
        if end > len(data):
            raise EOFError("a segment of the JPEG is cut off")
        yield Segment(marker, place + 4, end)
        place = end
        if marker == SCAN:
            found = _AFTER_SCAN.search(data, place)
            if found is None:
                return
            place = found.end() - 2
    raise EOFError("no last scan of the JPEG")
