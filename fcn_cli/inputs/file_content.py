"""The hash of a file's bytes, by which an image is known again whose time has changed."""

from __future__ import annotations

import hashlib
from functools import partial
from io import BufferedReader

_blake2b_16 = partial(hashlib.blake2b, digest_size=16)


def of_open_file(file: BufferedReader) -> str:
    """Return the BLAKE2b hash (16 bytes, as 32 hex digits) of a file's bytes; its position is 0 afterwards.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    file.seek(0)
    digest = hashlib.file_digest(file, _blake2b_16).hexdigest()
    file.seek(0)
    return digest
