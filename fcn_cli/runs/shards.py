"""Shards: how each begins and ends, and how the last one merges."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..common import files
from ..common.errors import ExitCode, OutputLocked, OutputLost, RequestError
from ..common.label_map import VOID_INDEX
from ..common.output_layout import RUN_FILE, SETTINGS_FILE, SUMMARY_BYTES, SUMMARY_FILE
from ..common.shard import Shard, shard_file, shards_with
from ..outputs import statistics
from ..outputs.directory import read_classes
from ..outputs.journal import Journal
from ..outputs.lock import Claim, OutputLock, pause
from ..outputs.output_store import OutputStore
from ..outputs.run_file import RunFile
from ..outputs.settings import RequestedSettings, read_fingerprint, require_output_directory

_ADDED = ("images", "ok", "skipped", "failed", "not_reached", "pruned")


@contextlib.contextmanager
def begun(
    output: OutputStore,
    shard: Shard,
    settings: RequestedSettings,
    wait: float,
    note: Callable[[str], None],
    *,
    overwrite: bool,
) -> Iterator[OutputLock]:
    """Hold an output directory for a shard.

    Records of another number of shards go to ``manifest.jsonl`` first, so that the journals stay in order
    (see `outputs.journal`). With `overwrite` so do all others while no other shard works: names may change.

    Raises
    ------
    SettingsMismatch
        A shard that works now has other settings; the directory would mix the two.
    OutputLocked, OutputLost
        Another run holds the directory, or it cannot be written.
    """
    text = json.dumps(settings.as_json(), sort_keys=True)
    lock = OutputLock(output, wait, note, Claim(shard, hashlib.sha256(text.encode()).hexdigest()[:16]))
    started = time.monotonic()
    while True:
        with OutputLost.when_refused(output):
            is_behind = _has_others(output, shard) or (overwrite and _is_left(output))
        if not is_behind:
            with lock:
                # Shards of another number may have worked meanwhile; from now on they cannot.
                with OutputLost.when_refused(output):
                    is_behind = _has_others(output, shard)
                if not is_behind:
                    yield lock
                    return
            continue
        try:
            with OutputLock(output, merging=True), OutputLost.when_refused(output):
                _consolidate(output)
        except OutputLocked:
            # Another shard has done it, or they are at work.
            if not _has_others(output, shard):
                continue
            if time.monotonic() - started >= wait:
                raise
            if not lock.waited:
                lock.waited = True
                note(f"{output}: waiting for a run with another number of shards")
            pause(output)


def end(output: OutputStore, shard: Shard, note: Callable[[str], None]) -> None:
    """Merge the journals of all shards if this shard, which has let its lock go, was the last to end.

    Of shards that end at the same time, the one that let its lock go last meets no other at work; so one at
    least comes as far as the merge. What is in the way there is a merge, for which it waits, or a run that
    takes the records over itself. Whatever it is, the shard has done its work.

    Raises
    ------
    OutputLost
        The directory cannot be written. The journals stay, and nothing is lost.
    """
    with OutputLost.when_refused(output):
        names = output.top_names()
        if shard_file(RUN_FILE, shard) not in names:
            return
        missing = (other for other in shard.all() if shard_file(RUN_FILE, other) not in names)
        try:
            if (other := _at_work(output) or next(missing, None)) is None:
                with OutputLock(output, merging=True):
                    other = _end_as_the_last(output, shard, note)
        except OutputLocked as error:
            note(f"shard {shard} is finished, but nothing is merged ({error}); run fcn merge {output}")
            return
    if other is not None:
        note(f"shard {shard} is finished; the last one to finish merges (still to finish: {other})")


def _at_work(output: OutputStore) -> Shard | None:
    """Return a shard that works, or begins to; what else is in the way of a merge shows when it begins."""
    others = (held.claim.shard for held in output.lock(Claim()).others())
    return next((shard for shard in others if shard is not None), None)


def _end_as_the_last(output: OutputStore, shard: Shard, note: Callable[[str], None]) -> Shard | None:
    """Merge, unless another shard is to come, which is returned; for the holder of the directory."""
    endings, own = _endings(_last_run(output)), RunFile.read(output, shard)
    taken_in = endings.get(str(shard))
    if own is None or taken_in is None or taken_in.run != own.id:
        # Else one that ended at the same time was faster.
        if (other := _to_come(output, shard, endings)) is not None:
            return other
        if output.journal_shards() or not statistics.up_to_date(output, _class_names(output)):
            totals = _merge(output)
            merged = f"{totals.images} done, {totals.failed} failed"
            note(f"shard {shard} is the last one to finish; merged: {merged}")
            return None
        statistics.write_run(output, _run_of_all(output))
    note(f"shard {shard} is the last one to finish; nothing to merge")
    return None


@dataclass(frozen=True)
class Merged:
    """What a merge has put together: how many images are `done`, and which shards have `not_ended`."""

    output: str
    done: int
    failed: int
    left: int
    shards: int
    not_ended: Sequence[Shard]

    @property
    def exit_code(self) -> int:
        return ExitCode.SOME_FAILED if self.failed or self.left or self.not_ended else ExitCode.OK

    def as_json(self) -> dict[str, Any]:
        return {
            "total": self.done + self.failed + self.left,
            "done": self.done,
            "failed": self.failed,
            "left": self.left,
            "shards": self.shards,
            "not_ended": [str(shard) for shard in self.not_ended],
        }


def merge(output: OutputStore, wait: float, note: Callable[[str], None]) -> Merged:
    """Merge the journals of all shards into ``manifest.jsonl``, and write the projections; segment nothing.

    Raises
    ------
    RequestError
        It is no output directory, or its settings are lost.
    OutputLocked, OutputLost
        A run holds the directory, or it cannot be written.
    """
    require_output_directory(output)
    if read_fingerprint(output) is None:
        raise RequestError(f"{output / SETTINGS_FILE}: damaged; an fcn segment command writes it again")
    with OutputLock(output, wait, note, merging=True), OutputLost.when_refused(output):
        runs = _shard_runs(output)
        totals = _merge(output)
    refused = sum(len(run.summary.get("refused", ())) for run in runs.values() if run and run.summary)
    return Merged(
        str(output),
        totals.images,
        totals.failed + refused,
        sum(run.counts.left for run in runs.values() if run is not None),
        len(runs),
        [shard for shard, run in runs.items() if run is None or run.ending is None],
    )


def _has_others(output: OutputStore, shard: Shard) -> bool:
    """Say whether there are journals of another number of shards."""
    return any(other.count != shard.count for other in output.journal_shards())


def _is_left(output: OutputStore) -> bool:
    """Say whether there are journals of shards, and nobody works."""
    return bool(output.journal_shards()) and next(output.lock(Claim()).others(), None) is None


def _to_come(output: OutputStore, shard: Shard, endings: Mapping[str, _Ending]) -> Shard | None:
    """Return a shard that has not ended since the last merge that it was part of, or None.

    Whether an ending is of today no clock can say. A merge numbers the endings that it takes in. A shard
    that has ended once more since merge 3 waits for all whose last ending was part of merge 3, or of one
    before. One that had not come to its end in that merge waits for no other: it is done again alone.
    """
    # Of those that have ended once more: the last merge before that. Of the others: the first merge.
    before, since, late = 0, None, None
    # From this one on, since those that follow are to come more often than those before.
    for other in sorted(shard.all(), key=lambda one: (one.index - shard.index) % shard.count):
        run = RunFile.read(output, other)
        if run is None or run.ending is None:
            return other
        if (last := endings.get(str(other))) is None:
            continue
        if last.run != run.id:
            before = max(before, last.merge)
        elif since is None or last.merge < since:
            since, late = last.merge, other
        if since is not None and since <= before:
            return late
    return None


def _merge(output: OutputStore) -> statistics.Totals:
    """Merge, and write the projections; for the holder of the directory."""
    with contextlib.closing(Journal(output)) as journal:
        journal.consolidate()
        names, run = _class_names(output), _run_of_all(output)
        return statistics.write(output, journal, read_fingerprint(output) or "", names, run)


def _consolidate(output: OutputStore) -> None:
    with contextlib.closing(Journal(output)) as journal:
        journal.consolidate()


def _class_names(output: OutputStore) -> Sequence[str]:
    return read_classes(output) or [f"class_{index}" for index in range(VOID_INDEX)]


def _run_of_all(output: OutputStore) -> dict[str, Any]:
    """Return the entry ``run`` of ``summary.json`` for the last runs of all shards together."""
    last = _last_run(output)
    found = {shard: run for shard, run in _shard_runs(output).items() if run is not None}
    summaries = [run.summary for run in found.values() if run.summary is not None]
    return {**_add_up(summaries), "endings": _endings_after(last, found)} if summaries else last


def _shard_runs(output: OutputStore) -> Mapping[Shard, RunFile | None]:
    """Return the last run of each shard, of the number of shards that worked last."""
    found = dict(shards_with(output.top_names(), RUN_FILE))
    if not found:
        return {}
    last = next(iter(found))
    if any(shard.count != last.count for shard in found):
        # Only a kill leaves those of several numbers.
        last = max(found, key=lambda shard: output.modified(found[shard]))
    return {shard: _whole(RunFile.read(output, shard)) if shard in found else None for shard in last.all()}


def _whole(run: RunFile | None) -> RunFile | None:
    """Return a run whose summary, if it has one, `_add_up` can read; any other is as if it were missing."""
    if run is None or (summary := run.summary) is None:
        return run
    is_whole = (
        isinstance(summary, dict)
        and all(isinstance(summary.get(key), int) for key in _ADDED)
        and isinstance(summary.get("seconds"), int | float)
        and isinstance(summary.get("images_per_second"), int | float | None)
        and isinstance(stages := summary.get("stage_seconds"), dict)
        and all(isinstance(seconds, int | float) for seconds in stages.values())
        and isinstance(refused := summary.get("refused"), list)
        and all(isinstance(record, dict) for record in refused)
        and isinstance(summary.get("stopped"), str | None)
        and isinstance(summary.get("end"), str | None)
    )
    return run if is_whole else None


def _last_run(output: OutputStore) -> dict[str, Any]:
    try:
        run = files.read_small_json(output / SUMMARY_FILE, SUMMARY_BYTES)["run"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return run if isinstance(run, dict) else {}


class _Ending(NamedTuple):
    """The last complete ending of a shard that merges have taken in: of which run, and by which one first."""

    run: str
    merge: int


def _endings(run: Mapping[str, Any]) -> dict[str, _Ending]:
    """Return the endings in the entry ``run`` of ``summary.json``, by shard."""
    try:
        return {shard: _Ending(str(one["run"]), int(one["merge"])) for shard, one in run["endings"].items()}
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return {}


def _endings_after(last: Mapping[str, Any], runs: Mapping[Shard, RunFile]) -> dict[str, Any]:
    """Return the endings that a merge of these runs has taken in; `last` is the entry ``run`` before it."""
    before = _endings(last)
    if not all(run.id for run in runs.values()):
        # Some are of 0.2: when they ended, nobody has noted.
        return {shard: ending._asdict() for shard, ending in before.items()}
    number = max((ending.merge for ending in before.values()), default=0) + 1
    after = {}
    for shard, run in runs.items():
        ended = run.ending is not None and run.ending.exit_code in {ExitCode.OK, ExitCode.SOME_FAILED}
        if ended and not run.counts.left:
            old = before.get(str(shard))
            merge = old.merge if old is not None and old.run == run.id else number
            after[str(shard)] = {"run": run.id, "merge": merge}
    return after


def _add_up(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the entry ``run`` of ``summary.json`` for the runs of all shards."""
    seconds = sum(run["seconds"] for run in runs)
    segmented = sum(run["seconds"] * (run["images_per_second"] or 0) for run in runs)
    stages = sorted({stage for run in runs for stage in run["stage_seconds"]})
    total: dict[str, Any] = {
        "shards": len(runs),
        **{key: sum(run[key] for run in runs) for key in _ADDED},
        "refused": [record for run in runs for record in run["refused"]],
        "stopped": next((run["stopped"] for run in runs if run["stopped"]), None),
        "end": max((run["end"] for run in runs if run.get("end")), default=None),
        "seconds": round(seconds, 3),
        "images_per_second": round(segmented / seconds, 3) if segmented else None,
        "stage_seconds": {s: round(sum(run["stage_seconds"].get(s, 0) for run in runs), 3) for s in stages},
    }
    # Of shards that only looked, the versions say less.
    computed = [run for run in runs if "device" in run] or runs
    for key in dict.fromkeys(key for run in computed for key in run if key not in total):
        values = [run[key] for run in computed if key in run]
        distinct = [value for place, value in enumerate(values) if value not in values[:place]]
        total[key] = distinct[0] if len(distinct) == 1 else distinct
    return total
