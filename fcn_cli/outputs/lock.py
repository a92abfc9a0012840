"""Locks of an output directory: one run, or the shards of one run with the same settings.

The directory has a lock, and so has each shard that works there. Whoever wants to work takes the lock of what
it wants to be, and then looks for locks of others that exclude it. Where there is one, it lets its own go and
tries again after a pause. So two that exclude each other never both go on:

- Each keeps its lock from before it looks until its work is over. One of the two took its lock last, and
  looked after that, while the other one's was held. It saw it, and let go.
- On a disk the kernel keeps a lock with a file, and only its holder removes that file: a lock on a file that
  has no name any more does not count. A look may meet such a file, and miss who has taken the lock of the new
  one. That one took it after the look had begun, so after the looking one took its own, and sees that.
- In an object store locks are objects: see `lease`.

Where both see each other, both let go. Their pauses are random, so that soon one of them meets nobody. Shards
of one number and settings do not exclude each other: none of them waits for another one when it begins.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from typing_extensions import override

from ..common import files
from ..common.errors import OutputLocked, OutputLost, SettingsMismatch
from ..common.output_layout import HOLDER_FILE, LOCK_FILE, RUN_FILE
from ..common.processes import ProcessIdentity
from ..common.shard import Shard, shard_file, shards_with
from ..common.wording import duration

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from .output_store import OutputStore, ReadableDirectory

MERGE_SECONDS = 600.0
"""How long a merge is waited for that somebody else has in hand."""

_ANNOUNCED_BYTES = 64


@dataclass(frozen=True, slots=True)
class Claim:
    """What somebody wants to work on: a shard, or all. `settings` stands for a shard's settings; "": any."""

    shard: Shard | None = None
    settings: str = ""

    def excludes(self, other: Claim) -> bool:
        """Say whether the two may not work at the same time."""
        if self.shard is None or other.shard is None:
            return True
        differ = bool(self.settings and other.settings) and self.settings != other.settings
        return self.shard == other.shard or self.shard.count != other.shard.count or differ


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that works on an output directory or a shard of it, or did and was killed.

    `temporary_prefix` begins the names of its temporary files. `merging`: it merges journals, which is soon
    over.
    """

    process: ProcessIdentity
    temporary_prefix: str
    merging: bool = False

    @classmethod
    def current(cls, *, merging: bool) -> Holder:
        return cls(ProcessIdentity.current(), files.temporary_prefix(), merging)

    def as_json(self) -> dict[str, Any]:
        return {**self.process.as_json(), "temporaries": self.temporary_prefix, "merging": self.merging}

    def as_file(self) -> bytes:
        """Return the content of ``.fcn.holder.json``."""
        return json.dumps(self.as_json()).encode() + b"\n"

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Holder:
        """Raise KeyError, TypeError, ValueError, AttributeError or OverflowError where it is none."""
        process = ProcessIdentity.from_json(value)
        return cls(process, str(value.get("temporaries", "")), bool(value.get("merging", False)))

    @classmethod
    def read(cls, output: ReadableDirectory, shard: Shard | None = None) -> Holder | None:
        """Return who says that it works on a local directory or a shard of it; None where nobody does."""
        try:
            return cls.from_json(files.read_small_json(output / shard_file(HOLDER_FILE, shard)))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
            return None


@dataclass(frozen=True, slots=True)
class Held:
    """A lock of somebody else. Without a `holder` nobody works yet: whoever has it looks, and may let go."""

    claim: Claim
    holder: Holder | None

    @property
    def run(self) -> str:
        return f"shard {self.claim.shard}" if self.claim.shard is not None else "another run"

    @property
    def who(self) -> str:
        return f" ({self.holder.process})" if self.holder is not None else ""


class Lock(Protocol):
    """The lock of a claim. All methods but `let_go` raise OSError."""

    claim: Claim

    def take(self) -> bool:
        """Try to get it; say whether this process has it now."""
        ...

    def others(self) -> Iterator[Held]:
        """Yield the locks of others that exclude this claim; its own one too, where somebody else has it."""
        ...

    def clear(self) -> None:
        """Remove what killed runs left that worked on the same; for who has the lock and met no other."""
        ...

    def tell(self, holder: Holder) -> None:
        """Say who works; for who has the lock and met no other."""
        ...

    def let_go(self) -> None:
        """Give it back; does nothing where this process does not have it."""
        ...


class OutputLock:
    """Holds an output directory, or a shard of it. Creates the directory; removes it if nothing was written.

    A killed run's lock passes: on a disk at once, but its last decoding workers may outlive it by seconds; in
    an object store see `lease`. This class waits for them and for those that only begin, for
    `passing_seconds` of the store, and for merges, for `MERGE_SECONDS`. `waited` says whether it waited for
    another run.

    Parameters
    ----------
    output
        The output directory.
    wait
        The number of seconds to wait for another run to end.
    waiting
        Called once with a message when the wait begins; it names the other run.
    claim
        What to hold.
    merging
        Whether to merge journals only.

    Raises
    ------
    OutputLocked
        Another run holds the directory; the message names its process and host.
    SettingsMismatch
        A shard works there with other settings.
    OutputLost
        The directory cannot be created or written.
    """

    def __init__(
        self,
        output: OutputStore,
        wait: float = 0.0,
        waiting: Callable[[str], None] = lambda _text: None,
        claim: Claim = Claim(),
        *,
        merging: bool = False,
    ) -> None:
        self.output = output
        self.claim = claim
        self.waited = False
        self._wait = wait
        self._waiting = waiting
        self._merging = merging
        self._lock = output.lock(claim)

    def __enter__(self) -> OutputLock:
        with OutputLost.when_refused(self.output), contextlib.ExitStack() as undo:
            undo.callback(self._lock.let_go)
            self._acquire()
            self._lock.clear()
            self._lock.tell(Holder.current(merging=self._merging))
            undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # A shard without images has written nothing, and has ended well.
            if self.output.is_new and (error is not None or self.claim.shard is None):
                self._remove_empty()
        finally:
            self._lock.let_go()

    def _acquire(self) -> None:
        started, since, before = time.monotonic(), time.monotonic(), None
        while (held := self._try()) is not None:
            now = time.monotonic()
            patience = self._patience(held)
            if patience != before:
                since, before = now, patience
            if patience is None and now - started >= self._wait:
                raise self._refusal(held)
            if patience is not None and now - since >= max(patience, self._wait):
                since_when = duration(now - since)
                raise OutputLocked(
                    f"{self.output}: {held.run} has held its lock for {since_when} without making "
                    f"progress{held.who}; is it suspended?{self.output.lock_note}"
                )
            if not self.waited and patience != self.output.passing_seconds:
                self.waited = True
                self._waiting(f"{self.output}: waiting for {held.run}{held.who}")
            pause(self.output)

    def _try(self) -> Held | None:
        """Take the lock, or return what is in the way."""
        self.output.make()
        # First without the lock, so that who waits is in nobody's way.
        held = next(self._lock.others(), None)
        if held is None:
            if not self._lock.take():
                return Held(self.claim, None)
            held = next(self._lock.others(), None)
            if held is not None:
                self._lock.let_go()
        return held

    def _patience(self, held: Held) -> float | None:
        """Return for how long to wait for a lock that is soon let go; None for that of a run that works."""
        holder = held.holder
        if holder is None:
            # Whoever begins lets go for a shard at most: where there is none, that is a run.
            is_between_runs = self.claim.shard is held.claim.shard is None and not self._merging
            return None if is_between_runs else self.output.passing_seconds
        if holder.process.is_alive() is False:
            return self.output.passing_seconds
        return MERGE_SECONDS if holder.merging else None

    def _refusal(self, held: Held) -> OutputLocked | SettingsMismatch:
        mine, other = self.claim.shard, held.claim.shard
        if mine is not None and other is not None and mine != other and mine.count == other.count:
            return SettingsMismatch(
                f"{self.output}: {held.run} is using other settings there{held.who}; give all shards "
                "the same options, or use another --output"
            )
        return OutputLocked(
            f"{self.output}: {held.run} is writing there{held.who}; wait for it to finish, or use "
            f"--wait{self.output.lock_note}"
        )

    def _remove_empty(self) -> None:
        ours = {shard_file(name, self.claim.shard) for name in (LOCK_FILE, HOLDER_FILE, RUN_FILE)}
        with contextlib.suppress(OSError, OutputLost):
            names = set(self.output.top_names())
            if names <= ours:
                for name in names:
                    self.output.remove(name)
                self.output.remove_empty()


def pause(output: OutputStore) -> None:
    """Wait a little before the next look at locks, each time for another while."""
    time.sleep(output.poll_seconds * random.uniform(0.5, 1.5))  # noqa: S311 - no secret


class FileLock(Lock):
    """A lock that the kernel keeps with a file, until its process, and all that it forked, have ended.

    Only who may write there can open the file, and so lock it: its mode is 0660 where the umask lets the
    group write, and 0600 elsewhere. It holds a shard's settings. Who works is in ``.fcn.holder.json`` beside
    it.
    """

    def __init__(self, root: Path, claim: Claim) -> None:
        self.claim = claim
        self._root = root
        self._path = root / shard_file(LOCK_FILE, claim.shard)
        self._holder = root / shard_file(HOLDER_FILE, claim.shard)
        self._descriptor: int | None = None
        self._is_told = False

    @override
    def take(self) -> bool:
        try:
            descriptor = files.open_regular(self._path, os.O_RDWR | os.O_CREAT, mode=0o620)
        except FileNotFoundError:
            # A run that writes nothing removes its directory.
            return False
        self._descriptor = descriptor
        is_mine = False
        try:
            if _flock(descriptor) and self._is_in_place():
                _restrict(descriptor)
                settings = self.claim.settings.encode()
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, settings, 0)
                is_mine = True
        finally:
            if not is_mine:
                self._close()
        return is_mine

    @override
    def others(self) -> Iterator[Held]:
        for shard, name in [(None, LOCK_FILE), *shards_with(self._names(), LOCK_FILE)]:
            if self._descriptor is not None and shard == self.claim.shard:
                continue
            with contextlib.suppress(FileNotFoundError):
                claim = self._excluded(shard, self._root / name)
                if claim is not None:
                    yield Held(claim, Holder.read(self._root, shard))

    @override
    def clear(self) -> None:
        if self.claim.shard is not None:
            # Other shards write now: of those killed, only what was this shard's own goes.
            for shard in (None, self.claim.shard):
                if (holder := Holder.read(self._root, shard)) is not None:
                    files.sweep_temporaries(self._root, holder.temporary_prefix)
            self._root.joinpath(HOLDER_FILE).unlink(missing_ok=True)
            return
        names = self._names()
        shards = {shard for name in (LOCK_FILE, HOLDER_FILE) for shard, _ in shards_with(names, name)}
        # A run that was killed before it wrote who it is has written nothing else.
        files.sweep_temporaries(self._root, below=HOLDER_FILE in names or bool(shards))
        for shard in shards:
            killed = FileLock(self._root, Claim(shard))
            with contextlib.suppress(OSError):
                # Or somebody has taken it now; that one meets this lock, and lets go.
                killed._is_told = killed.take()
                killed.let_go()

    @override
    def tell(self, holder: Holder) -> None:
        self._is_told = True
        files.write_text(self._holder, holder.as_file().decode())

    @override
    def let_go(self) -> None:
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):
            if self._is_told:
                self._holder.unlink(missing_ok=True)
            if self.claim.shard is not None and self._is_in_place():
                self._path.unlink()
        self._close()

    def _names(self) -> list[str]:
        try:
            return os.listdir(self._root)
        except FileNotFoundError:
            return []

    def _excluded(self, shard: Shard | None, path: Path) -> Claim | None:
        """Return the claim of a file's lock, if somebody has it and it excludes this one."""
        descriptor = files.open_regular(path, os.O_RDWR)
        try:
            claim = Claim(shard, os.pread(descriptor, _ANNOUNCED_BYTES, 0).decode("ascii", "replace"))
            # Shared: two that look do not take each other for a holder.
            return claim if self.claim.excludes(claim) and not _flock(descriptor, shared=True) else None
        finally:
            _unlock(descriptor)

    def _is_in_place(self) -> bool:
        """Say whether the file that this process has open is the one under its name."""
        assert self._descriptor is not None  # noqa: S101 - it is open
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.lstat(self._path))
        except FileNotFoundError:
            return False

    def _close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor, self._is_told = self._descriptor, None, False
            _unlock(descriptor)


def _flock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock a file, if nobody else has; say whether that succeeded."""
    if sys.platform == "win32":
        raise OSError("this system does not support file locks")
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unlock(descriptor: int) -> None:
    """Close a file and release its lock, also where a process that was forked has it open, too."""
    with contextlib.suppress(OSError):
        if sys.platform != "win32":
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _restrict(descriptor: int) -> None:
    """Let only those open a file who may write it: with a lock on it, others could keep its owner out."""
    mode = os.fstat(descriptor).st_mode & 0o777
    wanted = 0o660 if mode & 0o020 else 0o600
    if mode != wanted:
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, wanted)
