"""What every format of an export is: it prepares photos in threads and writes them in order."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ...common.label_map import LabelMap
from ...inputs.samples import Rendering
from ...outputs.record import Record

BACKGROUND_INDEX = 0
"""The class that is not exported as a region, like void."""


@dataclass(frozen=True)
class Destination:
    """Where an export goes, and what it is of.

    Parameters
    ----------
    path
        The file or directory to write.
    overwrite
        Replace an earlier export there.
    class_names
        By class index.
    rendering
        How the images become RGB.
    """

    path: Path
    overwrite: bool
    class_names: Sequence[str]
    rendering: Rendering


Results = Generator[Any, None, None]
"""Yields the results of an exporter's jobs that succeeded, in order."""


class Exporter(Protocol):
    """One format. The result of `job` is for `write` alone."""

    def __init__(self, destination: Destination) -> None:
        """Check the destination; raises RequestError when it must not be written."""

    def job(self, record: Record) -> Callable[[LabelMap], Any]:
        """Return what to do with a photo's label map, in a thread; called in order, in one thread.

        The function returned raises ImageError when the photo cannot be exported, and OutputLost.
        """
        ...

    def write(self, results: Results) -> None:
        """Write the results of all jobs, which come as they are done, in order.

        Jobs begin with the first result that is asked for. Closing `results` waits for those that run; so it
        comes before what they wrote is removed. When this returns, the export is under its final name; when
        it raises, nothing new is.

        Raises
        ------
        OutputLost
            The destination cannot be written.
        """
