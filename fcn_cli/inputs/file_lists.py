"""The lists of ``--files-from``."""

from __future__ import annotations

import codecs
import os

from ..common.errors import RequestError


def parse_list(data: bytes, *, null: bool) -> list[str]:
    r"""Split a list into names.

    Empty names are dropped, and any bytes are allowed in a name. A byte-order mark before the first name is
    dropped, and so are the ``\r`` of a list whose lines all end in ``\r\n``.

    Parameters
    ----------
    data
        The whole list.
    null
        The names are separated by NUL bytes, not by line ends. They are taken as they are then.

    Raises
    ------
    RequestError
        The list holds NUL bytes between lines, or is not in an encoding in which names are bytes.
    """
    if null:
        return [os.fsdecode(name) for name in data.split(b"\0") if name]
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and b"\0" in data:
        raise RequestError("the list is UTF-16 text; save it as UTF-8")
    if b"\0" in data:
        raise RequestError("the list has NUL bytes in it; give --null for one that `find -print0` wrote")
    names = data.removeprefix(codecs.BOM_UTF8).split(b"\n")
    # What follows the last line end is another line, which may lack its own.
    ended = [name for name in names[:-1] if name]
    if ended and all(name.endswith(b"\r") for name in ended):
        names = [name.removesuffix(b"\r") for name in names]
    return [os.fsdecode(name) for name in names if name]
