"""The locks of an output directory: one run at a time, or the shards of one number of shards."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ..common import files
from ..common.errors import OutputLocked, OutputLost
from ..common.output_layout import HOLDER_FILE, LOCK_FILE, RUN_FILE
from ..common.processes import ProcessIdentity
from ..common.shard import Shard, shard_file, shards_with
from .holder import Holder
from .output_store import OutputStore, as_store

_GATE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class _Obstacle:
    """What is in the way of a run: who holds a lock, if that is known, and of which shard the lock is."""

    holder: Holder | None
    shard: Shard | None = None
    passes_soon: bool = False


class OutputLock:
    """Holds an output directory for one run. Creates the directory; removes it if nothing was written.

    A directory has one lock, ``.fcn.lock``, and one for each shard that works there. A run without a shard
    holds the first one to its end, and begins only while no lock of a shard is held. A shard holds its own;
    it takes the first one for a moment to begin and to end, and begins only while no shard of another number
    of shards works: the two would do some photos twice. Entered, a shard keeps others out; see
    `let_others_in`.

    On a disk the kernel keeps the locks, so a killed run releases them. Its last decoding workers may outlive
    the run by seconds and still hold a lock; this class waits for them, and for others to merge or to begin.
    In an object store a lock is an object (see `lease`). `waited` says whether this class waited for another
    run.

    Parameters
    ----------
    output
        The output directory.
    wait
        The number of seconds to wait for another run to end.
    waiting
        Called once with a message when the wait begins; it names the other run.
    shard
        The shard to hold the directory for, or None to hold all of it.

    Raises
    ------
    OutputLocked
        Another run holds the directory; the message names its process and host.
    OutputLost
        The directory cannot be created or written.
    """

    def __init__(
        self,
        output: Path | OutputStore,
        wait: float = 0.0,
        waiting: Callable[[str], None] = lambda _text: None,
        shard: Shard | None = None,
    ) -> None:
        self.output = as_store(output)
        self.shard = shard
        self._wait = wait
        self._waiting = waiting
        self.waited = False
        self._gate = self.output.lock(LOCK_FILE)
        self._own = self.output.lock(shard_file(LOCK_FILE, shard)) if shard is not None else None

    def __enter__(self) -> OutputLock:
        with OutputLost.when_refused(self.output), contextlib.ExitStack() as undo:
            undo.callback(self._release)
            self._acquire()
            _sweep(self.output, self.shard)
            self.announce()
            undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with contextlib.suppress(OSError, OutputLocked, OutputLost):
                self.keep_others_out()
                _tidy(self.output, self.shard, failed=error is not None)
        finally:
            self._release()

    def announce(self, *, settings: str = "", merging: bool = False) -> None:
        """Write who holds the directory (see `Holder`); merging, a shard holds all of it; raises OSError."""
        shard = None if merging else self.shard
        Holder(ProcessIdentity.current(), files.temporary_prefix(), settings, merging).save(
            self.output, shard
        )

    def let_others_in(self) -> None:
        """For a shard: let other shards begin and end; raises OSError."""
        if self.shard is not None:
            self.output.remove(HOLDER_FILE)
            self._gate.release()

    def keep_others_out(self) -> None:
        """For a shard: let no other run begin from now on; raises OSError or OutputLocked."""
        if self._gate.is_held:
            return
        deadline = time.monotonic() + _GATE_SECONDS
        while not self._gate.acquire():
            if time.monotonic() > deadline:
                raise OutputLocked(f"{self.output / LOCK_FILE}: another process keeps it; is it stopped?")
            time.sleep(self.output.poll_seconds)

    def others(self) -> Iterator[Shard]:
        """Yield the other shards that work now; only while others are kept out."""
        return _working(self.output, self.shard)

    def _acquire(self) -> None:
        started = time.monotonic()
        while (obstacle := self._try()) is not None:
            holder = obstacle.holder
            dead = holder is not None and holder.process.is_alive() is False
            passes_soon = dead or obstacle.passes_soon
            merging = holder is not None and holder.merging and not dead
            who = f" ({holder.process})" if holder is not None else ""
            run = "another run" if obstacle.shard is None else f"shard {obstacle.shard}"
            if not merging and time.monotonic() - started >= max(
                self._wait, self.output.passing_seconds if passes_soon else 0
            ):
                raise OutputLocked(
                    f"{self.output}: {run} is writing there{who}; wait for it to end, or give --wait"
                    f"{self.output.lock_note}"
                )
            if not self.waited and not passes_soon:
                self.waited = True
                self._waiting(f"{self.output}: waiting for {run}{who}")
            time.sleep(self.output.poll_seconds)

    def _try(self) -> _Obstacle | None:
        """Take the locks, or return what is in the way."""
        self.output.make()
        if not self._gate.acquire():
            holder = Holder.read(self.output)
            # A shard that begins or ends takes this lock, too, and writes no holder.
            shards = self.shard is not None or bool(shards_with(self.output.top_names(), LOCK_FILE))
            return _Obstacle(holder, passes_soon=holder is None and shards)
        obstacle = next(self._shards_in_the_way(), None)
        if obstacle is None and self._own is not None and not self._own.acquire():
            obstacle = _Obstacle(None, self.shard, passes_soon=True)
        if obstacle is not None:
            self._gate.release()
        return obstacle

    def _shards_in_the_way(self) -> Iterator[_Obstacle]:
        for shard in _working(self.output, None):
            if self.shard is None or shard == self.shard or shard.count != self.shard.count:
                yield _Obstacle(Holder.read(self.output, shard), shard)

    def _release(self) -> None:
        if self._own is not None:
            self._own.release()
        self._gate.release()


def _working(output: OutputStore, own: Shard | None) -> Iterator[Shard]:
    """Yield the shards that work, without the own one; for the holder of the directory's first lock."""
    for shard, name in shards_with(output.top_names(), LOCK_FILE):
        if shard != own and output.lock(name).is_taken():
            yield shard


def _sweep(output: OutputStore, own: Shard | None) -> None:
    """Delete the temporary files of killed runs, and what they left for others to know them by."""
    if own is None:
        names = output.top_names()
        shards = [shard for shard, _ in shards_with(names, LOCK_FILE)]
        # A run that was killed before it wrote who it is has written nothing else.
        output.sweep(below=HOLDER_FILE in names or bool(shards))
        for shard in shards:
            _remove_traces(output, shard)
        return
    for holder in (Holder.read(output), Holder.read(output, own)):
        if holder is not None:
            # Other shards write now: only this run's own files go.
            output.sweep(holder.temporary_prefix)
    output.remove(HOLDER_FILE)


def _tidy(output: OutputStore, shard: Shard | None, *, failed: bool) -> None:
    """Remove the traces of this run; while others are kept out."""
    with contextlib.suppress(OSError):
        output.remove(HOLDER_FILE)
    if shard is not None:
        _remove_traces(output, shard)
    # A shard without photos has written nothing, and has ended well.
    if not output.is_new or not (failed or shard is None):
        return
    names = set(output.top_names())
    if names <= {LOCK_FILE, RUN_FILE, shard_file(RUN_FILE, shard)}:
        with contextlib.suppress(OSError):
            for name in names:
                output.remove(name)
            output.remove_empty()


def _remove_traces(output: OutputStore, shard: Shard) -> None:
    for name in (HOLDER_FILE, LOCK_FILE):
        with contextlib.suppress(OSError):
            output.remove(shard_file(name, shard))
