"""Parse the lists of ``--files-from``."""

from __future__ import annotations

import codecs
import os

from ..common.errors import RequestError


def parse_list(data: bytes, *, null: bool) -> list[str]:
    r"""Split a list into names.

    Empty names are dropped; names may contain any bytes. A byte-order mark at the start is dropped, and so is
    ``\r`` at the end of each line if all lines end in ``\r\n``.

    Parameters
    ----------
    data
        The whole list.
    null
        Names are separated by NUL bytes instead of line ends, and not changed in any way.

    Raises
    ------
    RequestError
        The list contains NUL bytes but `null` is false, or is UTF-16 text.
    """
    if null:
        return [os.fsdecode(name) for name in data.split(b"\0") if name]
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and b"\0" in data:
        raise RequestError("the list is UTF-16 text; save it as UTF-8")
    if b"\0" in data:
        raise RequestError("the list contains NUL bytes; use --null for the output of `find -print0`")
    names = data.removeprefix(codecs.BOM_UTF8).split(b"\n")
    # The last line may have no line end.
    ended = [name for name in names[:-1] if name]
    if ended and all(name.endswith(b"\r") for name in ended):
        names = [name.removesuffix(b"\r") for name in names]
    return [os.fsdecode(name) for name in names if name]
