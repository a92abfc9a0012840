"""The status of an output directory and its current or last run; reads only, without a lock."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from ..common.errors import ExitCode, RequestError
from ..common.output_layout import HOLDER_FILE, RUN_FILE, output_type_of
from ..common.processes import ProcessIdentity
from ..common.shard import Shard, shard_files
from .journal import JournalSnapshot, journal_path, open_for_reading, whole_lines
from .json_text import seconds_of
from .lock import Holder
from .record import Record
from .run_file import Counts, RunFile
from .settings import require_output_directory


class State(StrEnum):
    """What the current or last run does; the value is what ``fcn status --json`` prints.

    `STARTING`: it looks for images and plans. `KILLED`: it ended without saying so, killed or with a disk
    that takes nothing more. `UNKNOWN`: there is no ``run.json``; the counts are those of the records.
    `NOT_BEGUN`: a shard that others wait for.
    """

    STARTING = "starting"
    RUNNING = "running"
    ENDED = "ended"
    KILLED = "killed"
    UNKNOWN = "unknown"
    NOT_BEGUN = "not begun"


@dataclass(frozen=True)
class Status:
    """How far a run is.

    Parameters
    ----------
    state
        What it does.
    counts
        Its images; None while it starts.
    run
        Its ``run.json``, except while it starts.
    holder
        The process that works on the directory.
    is_alive
        Whether that process runs; None where this machine cannot tell.
    images_per_second
        Images recorded per second since the first one of this run; None before the second one.
    last_record
        When the last image was recorded (UTC), or None when this run has recorded none yet.
    shards
        Shard → its status, when shards share the work; then `counts` adds up those that have begun, and there
        is no single `run` or `holder`.
    """

    output: Path
    state: State
    counts: Counts | None
    run: RunFile | None = None
    holder: ProcessIdentity | None = None
    is_alive: bool | None = None
    images_per_second: float | None = None
    last_record: str | None = None
    shards: Mapping[Shard, Status] = field(default_factory=dict)

    @property
    def seconds_left(self) -> float | None:
        """The time left at this rate, in seconds; None when nothing runs or the rate is not known."""
        if (
            self.state != State.RUNNING
            or not self.counts
            or not self.counts.left
            or not self.images_per_second
        ):
            return None
        return self.counts.left / self.images_per_second

    @property
    def exit_code(self) -> int:
        """The exit code of ``fcn status``."""
        if self.state in {State.STARTING, State.RUNNING}:
            return ExitCode.LOCKED
        incomplete = self.counts is None or self.counts.failed or self.counts.left
        # A run that found no image has nothing left.
        ending = self.run.ending if self.run is not None else None
        incomplete = incomplete or self.state == State.NOT_BEGUN or (ending is not None and ending.exit_code)
        return ExitCode.SOME_FAILED if incomplete else ExitCode.OK

    def is_older(self, seconds: float) -> bool:
        """Say whether the last run ended longer ago, or never did; while one is going on it is not."""
        if self.state in {State.STARTING, State.RUNNING}:
            return False
        if self.shards:
            return any(one.is_older(seconds) for one in self.shards.values())
        ending = self.run.ending if self.run is not None else None
        ended = seconds_of(ending.time) if ending is not None else None
        return ended is None or time.time() - ended > seconds

    def as_json(self) -> dict[str, Any]:
        """Return the status by name."""
        counts, run = self.counts, self.run
        process = self.holder or (run.process if run else None)
        ending = run.ending if run else None
        rate, left = self.images_per_second, self.seconds_left
        return {
            "state": self.state,
            "total": counts.total if counts else None,
            "done": counts.done if counts else None,
            "failed": counts.failed if counts else None,
            "left": counts.left if counts else None,
            "images_per_second": round(rate, 3) if rate else None,
            "seconds_left": round(left, 1) if left is not None else None,
            "pid": process.pid if process else None,
            "host": process.host if process else None,
            "alive": self.is_alive if self.holder else False,
            "start": run.start if run else None,
            "last_record": self.last_record,
            "end": ending.time if ending else None,
            "exit_code": ending.exit_code if ending else None,
            "stopped": ending.stopped if ending else None,
            **(
                {"shards": {str(shard): one.as_json() for shard, one in self.shards.items()}}
                if self.shards
                else {}
            ),
        }


def read_status(output: Path) -> Status:
    """Return the status of an output directory.

    Raises
    ------
    RequestError
        It is no output directory, or its journal cannot be read.
    """
    try:
        count = _shard_count(output)
        if count is not None:
            return _sum(output, {shard: _read(output, shard) for shard in Shard(1, count).all()})
        return _read(output, None)
    except OSError as error:
        raise RequestError(f"{output}: cannot be read ({error.strerror})") from None


def _shard_count(output: Path) -> int | None:
    """Return the number of shards that work on a directory, or that last did; None if one run does or did."""
    plain = Holder.read(output)
    if plain is not None and not plain.merging and plain.process.is_alive() is not False:
        return None
    working = [shard.count for shard, _ in shard_files(output, HOLDER_FILE)]
    if working:
        return working[-1]
    run = RunFile.read(output)
    # The files of earlier runs are there after a kill only.
    starts = [(run.start, 0)] if run is not None else []
    for shard, _ in shard_files(output, RUN_FILE):
        if (of_shard := RunFile.read(output, shard)) is not None:
            starts.append((of_shard.start, shard.count))
    return (max(starts)[1] or None) if starts else None


def _read(output: Path, shard: Shard | None) -> Status:
    holder, run = Holder.read(output, shard), RunFile.read(output, shard)
    if holder is None and run is not None and run.ending is None:
        # Another run may have begun between the two readings.
        holder = Holder.read(output, shard)
    if holder is None and run is None:
        if shard is not None:
            return Status(output, State.NOT_BEGUN, None)
        require_output_directory(output)
    return _status(output, holder.process if holder is not None else None, run, shard)


def _status(output: Path, holder: ProcessIdentity | None, run: RunFile | None, shard: Shard | None) -> Status:
    alive = holder.is_alive() if holder is not None else False
    if holder is not None and alive is not False:
        if run is None or run.process != holder:
            return Status(output, State.STARTING, None, None, holder, alive)
        if run.ending is None:
            return replace(_counted(output, State.RUNNING, run, shard, alive), holder=holder, is_alive=alive)
    if run is None and shard is not None:
        return Status(output, State.NOT_BEGUN, None)
    if run is None:
        with JournalSnapshot(output) as records:
            failed = sum(not record.ok for record in records)
            return Status(output, State.UNKNOWN, Counts(len(records) - failed, failed, 0))
    if run.ending is None:
        return replace(_counted(output, State.KILLED, run, shard, False), is_alive=False)
    return Status(output, State.ENDED, run.counts, run)


def _sum(output: Path, shards: dict[Shard, Status]) -> Status:
    """Return the status of shards together: the first state in this order that one has, and all counts."""
    states = {status.state for status in shards.values()}
    order = (State.RUNNING, State.STARTING, State.KILLED, State.NOT_BEGUN, State.ENDED)
    begun = [status.counts for status in shards.values() if status.counts is not None]
    counts = Counts(
        sum(one.done for one in begun), sum(one.failed for one in begun), sum(one.left for one in begun)
    )
    rates = [status.images_per_second for status in shards.values() if status.state == State.RUNNING]
    return Status(
        output,
        next(state for state in order if state in states),
        counts if begun else None,
        images_per_second=sum(rate or 0.0 for rate in rates) or None,
        last_record=max(filter(None, (status.last_record for status in shards.values())), default=None),
        shards=shards,
    )


def _counted(output: Path, state: State, run: RunFile, shard: Shard | None, is_alive: bool | None) -> Status:
    """Return the status of a run without an ending, from what it has appended to the journal."""
    done = failed = 0
    first = last = None
    for record in _appended(journal_path(output, shard), run.journal_bytes):
        # Before a file is written again, a record without it is appended: such an image is not done.
        if record.ok and not set(run.types) <= set(map(output_type_of, record.outputs)):
            continue
        if record.status == "gone":
            continue
        done += record.ok
        failed += not record.ok
        first, last = first or record.finished, record.finished
    begun = run.counts
    counts = Counts(begun.done + done, begun.failed + failed, begun.left - done - failed)
    # A watch rests when nothing is left: it has no rate.
    rate = _rate(done + failed, first, last, is_alive) if counts.left else None
    return Status(output, state, counts, run, images_per_second=rate, last_record=last)


def _appended(journal: Path, begin: int) -> Iterator[Record]:
    """Yield the records that a run has appended after the journal's first `begin` bytes."""
    try:
        stream = open_for_reading(journal)
    except FileNotFoundError:
        return
    with stream:
        stream.seek(begin)
        for line, _ in whole_lines(stream):
            try:
                yield Record.from_line(line)
            except ValueError:
                continue


def _rate(count: int, first: str | None, last: str | None, is_alive: bool | None) -> float | None:
    """Return images per second from the time of the first record to now, or to the last if none follows."""
    begin = seconds_of(first) if first else None
    end = seconds_of(last) if last else None
    if begin is None or end is None:
        return None
    if is_alive:
        end = max(end, time.time())
    return (count - 1) / (end - begin) if count > 1 and end > begin else None
