"""``run.json``: the state of the current or last run; each shard has its own."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..common import files
from ..common.output_layout import RUN_FILE, SUMMARY_BYTES
from ..common.processes import ProcessIdentity
from ..common.shard import Shard, shard_file, shard_files, shards_with
from .json_text import printable_utf8, utc_now
from .output_store import LocalStore, OutputStore, ReadableDirectory


@dataclass(frozen=True, slots=True)
class Counts:
    """The images of a run: `done` before or now, `failed` before or now, and `left`."""

    done: int
    failed: int
    left: int

    @property
    def total(self) -> int:
        """The number of images of the run."""
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
    types
        The output types that the run writes.
    journal_bytes
        The length of the journal when the work began: what follows, the run appended.
    counts
        The images when the work began; once the run has ended, when it ended.
    ending
        How it ended; None while it runs, and when it could not say.
    summary
        Of a shard that has ended: what ``summary.json`` says of a run, to be added up when the shards merge.
    id
        A random name of the run; empty in files of 0.2.
    """

    process: ProcessIdentity
    start: str
    types: tuple[str, ...]
    journal_bytes: int
    counts: Counts
    ending: Ending | None = None
    summary: Mapping[str, Any] | None = None
    id: str = ""

    @classmethod
    def begin(
        cls, types: tuple[str, ...], journal_bytes: int, counts: Counts, start: str | None = None
    ) -> RunFile:
        """Return the file of this process's run; its work begins now, unless it began at `start`."""
        process, name = ProcessIdentity.current(), secrets.token_hex(8)
        return cls(process, start or utc_now(), types, journal_bytes, counts, id=name)

    def ended(
        self, counts: Counts, exit_code: int, stopped: str | None, summary: Mapping[str, Any] | None = None
    ) -> RunFile:
        """Return the file of this run when it ends."""
        return replace(self, counts=counts, ending=Ending(utc_now(), exit_code, stopped), summary=summary)

    def save(self, output: OutputStore, shard: Shard | None = None) -> None:
        """Write the file into an output directory; remove those of what the directory had before.

        A run without shards follows shards, or those of one number of shards follow another number's.

        Raises
        ------
        OSError
            The file cannot be written.
        """
        output.write_text(shard_file(RUN_FILE, shard), self._text())
        if shard is not None:
            output.remove(RUN_FILE)
        for other, name in shards_with(output.top_names(), RUN_FILE):
            if shard is None or other.count != shard.count:
                output.remove(name)

    def save_ending(self, output: OutputStore, shard: Shard | None = None) -> None:
        """Save the file; where a disk is full, write over the one that is there, which has a block already.

        Raises
        ------
        OSError
            The file cannot be written that way either.
        """
        try:
            self.save(output, shard)
        except OSError:
            if not isinstance(output, LocalStore):
                raise
            path = output.safe_path(shard_file(RUN_FILE, shard))
            with open(path, "r+b", buffering=0, opener=files.open_regular) as stream:
                stream.write(self._text().encode())
                stream.truncate()
                os.fsync(stream.fileno())

    def _text(self) -> str:
        ending = self.ending
        content = {
            **self.process.as_json(),
            "id": self.id,
            "start": self.start,
            "total": self.counts.total,
            "done": self.counts.done,
            "failed": self.counts.failed,
            "kinds": list(self.types),
            "journal_bytes": self.journal_bytes,
            "end": ending.time if ending else None,
            "exit_code": ending.exit_code if ending else None,
            "stopped": printable_utf8(ending.stopped) if ending and ending.stopped else None,
        }
        if self.summary is not None:
            content["summary"] = self.summary
        return json.dumps(content, indent=2) + "\n"

    @classmethod
    def read(cls, output: ReadableDirectory, shard: Shard | None = None) -> RunFile | None:
        """Return the run of an output directory or a shard; None when the file is missing or damaged."""
        try:
            return cls._from_json(files.read_small_json(output / shard_file(RUN_FILE, shard), SUMMARY_BYTES))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
            return None

    @classmethod
    def _from_json(cls, value: Mapping[str, Any]) -> RunFile:
        total, done, failed = int(value["total"]), int(value["done"]), int(value["failed"])
        ending = None
        if value["end"] is not None:
            stopped = value["stopped"]
            ending = Ending(str(value["end"]), int(value["exit_code"]), stopped and str(stopped))
        return cls(
            ProcessIdentity.from_json(value),
            str(value["start"]),
            tuple(map(str, value["kinds"])),
            min(max(int(value["journal_bytes"]), 0), 1 << 62),
            Counts(done, failed, total - done - failed),
            ending,
            value.get("summary"),
            str(value.get("id", "")),
        )


def read_any_run(output: Path) -> RunFile | None:
    """Return the last run of an output directory, of its shards any one; None without a whole file."""
    runs = [
        RunFile.read(output),
        *(RunFile.read(output, shard) for shard, _ in shard_files(output, RUN_FILE)),
    ]
    return next(filter(None, runs), None)
