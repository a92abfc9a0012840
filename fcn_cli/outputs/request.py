"""The requested outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from ..common.output_layout import DEFAULT_OUTPUT_TYPES, GEOTIFF
from . import geotiff, settings
from .bucket_store import open_store
from .looks import LookRequest
from .output_store import OutputStore


@dataclass(frozen=True)
class OutputRequest:
    """An output directory, and what it shall hold of each image.

    `directory` is a path, or the URL of a place in an object store. `types` are output types, `look` is
    how they look. With `keep_extension` outputs are called ``cat.jpg.png`` instead of ``cat.png``. The run's
    own `log_file` may lie in the directory.
    """

    directory: str = "fcn_output"
    types: Sequence[str] = DEFAULT_OUTPUT_TYPES
    look: LookRequest = field(default_factory=LookRequest)
    keep_extension: bool = False
    log_file: Path | None = None

    @cached_property
    def store(self) -> OutputStore:
        """The output directory; each process makes its own.

        Raises
        ------
        RequestError
            It is a URL of something that cannot be written.
        """
        return open_store(self.directory)

    def check(self) -> None:
        """Raise RequestError when the directory holds what is not ours, or a type cannot be written here."""
        if GEOTIFF in self.types:
            geotiff.require()
        settings.refuse_foreign(self.store, self.log_file)

    def __getstate__(self) -> dict[str, Any]:
        return {item.name: getattr(self, item.name) for item in fields(self)}
