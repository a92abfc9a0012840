"""Names for exported files: unique, safe on any file system, and in lists that are split at white space."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath

from ...inputs.collisions import folded

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
