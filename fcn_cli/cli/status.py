"""``fcn status``: how far a run is."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from ..common import utc_time
from ..common.wording import counted, duration
from . import directory_options, options
from .console import one_line, write_line
from .figures import print_object

if TYPE_CHECKING:
    from ..outputs.status import Status


def status(
    output: directory_options.OutputDirectory,
    max_age: directory_options.MaxAge = None,
    as_json: options.FiguresAsJson = False,
) -> None:
    """Print how far the current or last run into an output directory is.

    It takes no lock and does not disturb a run. A run on another host counts as running until its own end
    removes its traces, because nothing here can tell whether it was killed.

    Exit codes: 0 all images are done; 1 some failed or were not reached, the last run ended with an error or
    longer ago than --max-age; 2 OUT is no output directory; 4 a run is going on.
    """
    from ..outputs.status import read_status

    found = read_status(output)
    too_old = max_age is not None and found.is_older(max_age)
    if as_json:
        print_object({**found.as_json(), **({"too_old": too_old} if max_age is not None else {})})
    else:
        for line in _lines(found):
            write_line(one_line(line), sys.stdout)
        if too_old:
            write_line(f"no run has ended in the last {duration(max_age)}", sys.stdout)
    raise typer.Exit(found.exit_code or int(too_old))


def _lines(status: Status) -> Iterator[str]:
    from ..outputs.status import State

    if status.shards:
        yield f"{status.output}: {_states_of_shards(status)}"
        for shard, one in status.shards.items():
            if one.state == State.KILLED or (one.run is not None and one.run.counts.left and one.run.ending):
                yield f"shard {shard}: {_state(one)}"
    else:
        yield f"{status.output}: {_state(status)}"
    counts = status.counts
    if counts is None:
        return
    parts = [f"{counts.done} done", f"{counts.failed} failed"]
    if counts.left:
        parts.append(f"{counts.left} left")
    yield f"{counted(counts.total, 'image')}: {', '.join(parts)}"
    if status.seconds_left is not None:
        yield f"{status.images_per_second:.2f} images/s, about {duration(status.seconds_left)} left"
    if (counts.left or status.state == State.NOT_BEGUN) and status.exit_code == 1:
        command = "fcn segment commands of these shards" if status.shards else "fcn segment command"
        yield f"to go on, give the same {command} again"


def _states_of_shards(status: Status) -> str:
    states = Counter(one.state for one in status.shards.values())
    parts = [f"{count} {state}" for state, count in states.items()]
    return f"{counted(len(status.shards), 'shard')}: {', '.join(parts)}"


def _state(status: Status) -> str:
    from ..outputs.status import State

    run = status.run
    unsure = "" if status.is_alive else "; this machine cannot tell whether it is alive"
    if status.state == State.STARTING:
        return f"a run is starting ({status.holder}): it looks for photos and plans{unsure}"
    if run is None:
        return "no run.json; the counts are those of the records"
    began = f"{run.process}, began {_when(run.start)}"
    if status.state == State.RUNNING:
        return f"running: {began}{unsure}"
    if run.ending is None:
        last = f", last record {status.last_record}" if status.last_record else ""
        return f"killed, or it could not write how it ended: {began}{last}"
    reason = f": {run.ending.stopped}" if run.ending.stopped else ""
    return f"ended {_when(run.ending.time)} with exit code {run.ending.exit_code}{reason}"


def _when(text: str) -> str:
    seconds = utc_time.seconds_of(text)
    return f"{text} ({duration(time.time() - seconds)} ago)" if seconds is not None else text
