"""Data as classic scripts: a page from ``file://`` can load nothing else on demand."""

from __future__ import annotations

import json
from typing import Any

_RECEIVER = "fcnReport.receive"
_ESCAPES = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}


def to_json(value: Any) -> str:
    r"""Return compact ASCII JSON without ``<``, ``>`` and ``&``.

    Such text can stand in a script element: nothing in it ends the element or begins a comment. In ASCII, the
    line separators U+2028 and U+2029 are escaped too.
    """
    # Outside of strings JSON has none of the three characters.
    return json.dumps(value, separators=(",", ":")).translate(_ESCAPES)


def to_script(name: str, value: Any) -> bytes:
    """Return a script that hands a value to the page under a name."""
    return f"{_RECEIVER}({to_json(name)},{to_json(value)});\n".encode("ascii")
