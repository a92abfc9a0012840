"""The lock of an output directory: one run at a time."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path

import filelock

from ..common import files
from ..common.errors import OutputLocked, OutputLost
from ..common.output_layout import HOLDER_FILE, LOCK_FILE, RUN_FILE
from ..common.processes import ProcessIdentity

_ORPHAN_SECONDS = 8.0
_POLL_SECONDS = 0.05


class OutputLock:
    """Holds an output directory for one run. Creates the directory; removes it if nothing was written.

    The kernel keeps the lock, so a killed run releases it. Its last decoding workers may outlive the run by
    seconds and still hold the lock; this class waits for them. `waited` says whether it waited for another
    run.

    Parameters
    ----------
    output
        The output directory.
    wait
        The number of seconds to wait for another run to end.
    waiting
        Called once with a message when the wait begins; it names the other run.

    Raises
    ------
    OutputLocked
        Another run holds the directory; the message names its process and host.
    OutputLost
        The directory cannot be created or written.
    """

    def __init__(
        self, output: Path, wait: float = 0.0, waiting: Callable[[str], None] = lambda _text: None
    ) -> None:
        self.output = output
        self._wait = wait
        self._waiting = waiting
        self.waited = False
        self._lock = filelock.FileLock(output / LOCK_FILE)
        self._created: list[Path] = []

    def __enter__(self) -> OutputLock:
        with OutputLost.when_refused(self.output), contextlib.ExitStack() as undo:
            undo.callback(self._lock.release)
            if not self.output.is_dir():
                self._created = [self.output, *(p for p in self.output.parents if not p.exists())]
            self._acquire()
            holder = self.output / HOLDER_FILE
            if holder.exists():
                files.sweep_temporaries(self.output)
            files.write_text(holder, json.dumps(ProcessIdentity.current().as_json()) + "\n")
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            (self.output / HOLDER_FILE).unlink()
        names = {path.name for path in self.output.iterdir()} if self.output.is_dir() else set()
        if self._created and names <= {LOCK_FILE, RUN_FILE}:
            with contextlib.suppress(OSError):
                for name in names:
                    (self.output / name).unlink()
                for directory in self._created:
                    directory.rmdir()
        self._lock.release()

    def _acquire(self) -> None:
        started = time.monotonic()
        while not self._try():
            holder = read_holder(self.output)
            dead = holder is not None and holder.is_alive() is False
            who = f" ({holder})" if holder is not None else ""
            if time.monotonic() - started >= max(self._wait, _ORPHAN_SECONDS if dead else 0):
                raise OutputLocked(
                    f"{self.output}: another run is writing there{who}; wait for it to end, or give --wait"
                )
            if not self.waited and not dead:
                self.waited = True
                self._waiting(f"{self.output}: waiting for another run{who}")
            time.sleep(_POLL_SECONDS)

    def _try(self) -> bool:
        files.make_directories(self.output)
        try:
            self._lock.acquire(timeout=0)
        except (filelock.Timeout, FileNotFoundError):
            # A run that writes nothing removes its directory, and the lock with it.
            return False
        if (self.output / LOCK_FILE).exists():
            return True
        self._lock.release()
        return False


def read_holder(output: Path) -> ProcessIdentity | None:
    """Return the process that holds an output directory, or held it and was killed; None without one."""
    try:
        return ProcessIdentity.from_json(json.loads((output / HOLDER_FILE).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError):
        return None
