"""``run.json``: who the current or last run is, what it found when it began, and how it ended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..common import files, utc_time
from ..common.output_layout import RUN_FILE
from ..common.processes import ProcessIdentity
from .json_text import printable_utf8


@dataclass(frozen=True, slots=True)
class Counts:
    """The photos of a run: `done` before or now, `failed` before or now, and `left`."""

    done: int
    failed: int
    left: int

    @property
    def total(self) -> int:
        """The number of photos of the run."""
        return self.done + self.failed + self.left


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended: when (in UTC), the exit code of its process, and why it ended early, if it did."""

    time: str
    exit_code: int
    stopped: str | None = None


@dataclass(frozen=True, slots=True)
class RunFile:
    """The current or last run of an output directory.

    Parameters
    ----------
    process
        The process of the run.
    start
        When its work began: what was to be done was known then. In UTC.
    kinds
        The kinds of output that the run writes.
    journal_bytes
        The length of the journal when the work began: what follows, the run appended.
    counts
        The photos when the work began; once the run has ended, when it ended.
    ending
        How it ended; None while it runs, and when it was killed.
    """

    process: ProcessIdentity
    start: str
    kinds: tuple[str, ...]
    journal_bytes: int
    counts: Counts
    ending: Ending | None = None

    @classmethod
    def begin(cls, kinds: tuple[str, ...], journal_bytes: int, counts: Counts) -> RunFile:
        """Return the file of this process's run, whose work begins now."""
        return cls(ProcessIdentity.current(), utc_time.now(), kinds, journal_bytes, counts)

    def ended(self, counts: Counts, exit_code: int, stopped: str | None) -> RunFile:
        """Return the file of this run when it ends."""
        return replace(self, counts=counts, ending=Ending(utc_time.now(), exit_code, stopped))

    def says_the_same(self, other: RunFile) -> bool:
        """Say whether another run wrote the same kinds and ended in the same way, whenever it was."""
        mine, other_one = self.ending, other.ending
        if mine is None or other_one is None:
            return False
        return (self.kinds, self.counts, mine.exit_code, mine.stopped) == (
            other.kinds,
            other.counts,
            other_one.exit_code,
            other_one.stopped,
        )

    def save(self, output: Path) -> None:
        """Write the file into an output directory; raises OSError."""
        ending = self.ending
        content = {
            **self.process.as_json(),
            "start": self.start,
            "total": self.counts.total,
            "done": self.counts.done,
            "failed": self.counts.failed,
            "kinds": list(self.kinds),
            "journal_bytes": self.journal_bytes,
            "end": ending.time if ending else None,
            "exit_code": ending.exit_code if ending else None,
            "stopped": printable_utf8(ending.stopped) if ending and ending.stopped else None,
        }
        files.write_text(output / RUN_FILE, json.dumps(content, indent=2) + "\n")

    @classmethod
    def read(cls, output: Path) -> RunFile | None:
        """Return the run of an output directory, or None when the file is missing or damaged."""
        try:
            return cls._from_json(json.loads((output / RUN_FILE).read_bytes()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    @classmethod
    def _from_json(cls, value: Mapping[str, Any]) -> RunFile:
        total, done, failed = int(value["total"]), int(value["done"]), int(value["failed"])
        ending = None
        if value["end"] is not None:
            ending = Ending(str(value["end"]), int(value["exit_code"]), value["stopped"])
        return cls(
            ProcessIdentity.from_json(value),
            str(value["start"]),
            tuple(value["kinds"]),
            int(value["journal_bytes"]),
            Counts(done, failed, total - done - failed),
            ending,
        )
