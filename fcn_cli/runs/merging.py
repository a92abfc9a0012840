"""Shards of one output directory: how each one begins, and how the last one merges what all have written."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..common import files
from ..common.errors import OutputLost, RequestError, SettingsMismatch
from ..common.label_map import VOID_INDEX
from ..common.output_layout import JOURNAL_FILE, RUN_FILE, SETTINGS_FILE, SUMMARY_BYTES, SUMMARY_FILE
from ..common.shard import Shard, shards_with
from ..outputs import statistics
from ..outputs.directory import read_classes
from ..outputs.holder import Holder
from ..outputs.journal import Journal
from ..outputs.lock import OutputLock
from ..outputs.output_store import OutputStore
from ..outputs.run_file import RunFile
from ..outputs.settings import RequestedSettings, read_fingerprint, require_output_directory
from .report import Summary

_ADDED = ("images", "ok", "skipped", "failed", "not_reached", "pruned")


def begin_shard(lock: OutputLock, settings: RequestedSettings, *, overwrite: bool) -> None:
    """Prepare an output directory for a shard, and let other shards in.

    Records of another number of shards go to ``manifest.jsonl`` first, so that the journals stay in order
    (see `journal_files`). With `overwrite` so do all others while no other shard works: names may change.

    Raises
    ------
    SettingsMismatch
        A shard that works now has other settings; the directory would mix the two.
    OutputLost
        The directory cannot be written.
    """
    assert lock.shard is not None  # noqa: S101 - called for shards
    text = json.dumps(settings.as_json(), sort_keys=True)
    mark = hashlib.sha256(text.encode()).hexdigest()[:16]
    others = list(lock.others())
    for other in others:
        holder = Holder.read(lock.output, other)
        if holder is not None and holder.settings and holder.settings != mark:
            raise SettingsMismatch(
                f"{lock.output}: shard {other} works there with other settings ({holder.process}); give all "
                "shards the same options, or use another --output"
            )
    counts = {shard.count for shard, _ in shards_with(lock.output.top_names(), JOURNAL_FILE)}
    with OutputLost.when_refused(lock.output):
        if not others and (counts - {lock.shard.count} or (counts and overwrite)):
            lock.announce(merging=True)
            with contextlib.closing(Journal(lock.output)) as journal:
                journal.mend()
        lock.announce(settings=mark)
        lock.let_others_in()


def end_shard(lock: OutputLock, note: Callable[[str], None]) -> None:
    """Merge the journals of all shards if this shard is the last to end: no other works or is still to come.

    Raises
    ------
    OutputLost
        The directory cannot be written. The journals stay, and nothing is lost.
    """
    shard, output = lock.shard, lock.output
    assert shard is not None  # noqa: S101 - called for shards
    with OutputLost.when_refused(output):
        lock.keep_others_out()
        working = set(lock.others())
        runs = {other: RunFile.read(output, other) for other in shard.all()}
        to_come = [o for o, run in runs.items() if o in working or run is None or run.ending is None]
        if to_come:
            few = ", ".join(str(other.index) for other in to_come[:10])
            more = f" and {len(to_come) - 10} more" if len(to_come) > 10 else ""
            note(f"shard {shard} ends; the last one to end merges (to come of {shard.count}: {few}{more})")
        elif _is_merged(output):
            note(f"shard {shard} ends as the last one; nothing to merge")
        else:
            lock.announce(merging=True)
            totals = _merge(output)
            note(f"shard {shard} ends as the last one; merged: {totals.images} ok, {totals.failed} failed")


def merge(output: OutputStore, wait: float, note: Callable[[str], None]) -> Summary:
    """Merge the journals of all shards into ``manifest.jsonl``, and write the projections; segment nothing.

    Returns
    -------
    Summary
        The photos of all shards.

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
    with OutputLock(output, wait, note) as lock, OutputLost.when_refused(output):
        lock.announce(merging=True)
        runs = _shard_runs(output)
        missing = [shard for shard, run in runs.items() if run is None or run.ending is None]
        if missing:
            names = ", ".join(map(str, missing[:10])) + (" …" if len(missing) > 10 else "")
            note(f"{len(missing)} of {len(runs)} shards have not ended: {names}")
        totals = _merge(output)
        refused = sum(len(run.summary.get("refused", ())) for run in runs.values() if run and run.summary)
        left = sum(run.counts.left for run in runs.values() if run is not None)
        return Summary(
            str(output),
            read_classes(output) or (),
            total=totals.images + totals.failed + refused + left,
            skipped=totals.images,
            failed=totals.failed + refused,
            totals=totals,
        )


def _merge(output: OutputStore) -> statistics.Totals:
    """Merge, and write the projections; for the holder of all locks."""
    with contextlib.closing(Journal(output)) as journal:
        journal.mend()
        return _write_projections(output, journal)


def _class_names(output: OutputStore) -> Sequence[str]:
    return read_classes(output) or [f"class_{index}" for index in range(VOID_INDEX)]


def _write_projections(output: OutputStore, journal: Journal) -> statistics.Totals:
    runs = [
        run.summary for run in _shard_runs(output).values() if run is not None and run.summary is not None
    ]
    run = _add_up(runs) if runs else _last_run(output)
    return statistics.write(output, journal, read_fingerprint(output) or "", _class_names(output), run)


def _is_merged(output: OutputStore) -> bool:
    is_one = not shards_with(output.top_names(), JOURNAL_FILE)
    return is_one and statistics.up_to_date(output, _class_names(output))


def _shard_runs(output: OutputStore) -> Mapping[Shard, RunFile | None]:
    """Return the last run of each shard, of the number of shards that worked last."""
    found = shards_with(output.top_names(), RUN_FILE)
    if not found:
        return {}
    # Only a kill leaves those of several numbers.
    newest = max(found, key=lambda entry: output.modified(entry[1]))[0]
    return {shard: _whole(RunFile.read(output, shard)) for shard in newest.all()}


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
