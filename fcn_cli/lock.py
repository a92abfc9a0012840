"""One run per output directory."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import filelock

from . import storage
from .errors import OutputLocked, OutputLost

_LOCK_FILE = ".fcn.lock"
_HOLDER_FILE = ".fcn.holder.json"
_ORPHAN_SECONDS = 8.0


class OutputLock:
    """Holds an output directory for one run; made, and when it stays empty unmade, with the directory.

    The lock is the kernel's, so a run that was killed holds nothing. Its last decoding workers may outlive
    it by seconds with the lock in hand; that is waited for.

    Raises
    ------
    OutputLocked
        Another run holds the directory; the text names its process and host.
    OutputLost
        The directory cannot be made or written.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self._lock = filelock.FileLock(output / _LOCK_FILE)
        self._created: list[Path] = []

    def __enter__(self) -> OutputLock:
        with OutputLost.when_refused(self.output), contextlib.ExitStack() as undo:
            undo.callback(self._lock.release)
            if not self.output.is_dir():
                self._created = [self.output, *(p for p in self.output.parents if not p.exists())]
            storage.make_folders(self.output)
            self._acquire()
            holder = self.output / _HOLDER_FILE
            if holder.exists():
                storage.sweep_temporaries(self.output)
            storage.write_text(holder, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}) + "\n")
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            (self.output / _HOLDER_FILE).unlink()
        left = {path.name for path in self.output.iterdir()} if self.output.is_dir() else set()
        if self._created and left <= {_LOCK_FILE}:
            with contextlib.suppress(OSError):
                (self.output / _LOCK_FILE).unlink(missing_ok=True)
                for folder in self._created:
                    folder.rmdir()
        self._lock.release()

    def _acquire(self) -> None:
        waited_until = time.monotonic() + _ORPHAN_SECONDS
        while True:
            try:
                self._lock.acquire(timeout=0)
            except filelock.Timeout:
                holder = self._holder()
                if _is_dead(holder) and time.monotonic() < waited_until:
                    time.sleep(0.05)
                    continue
                who = f" (process {holder['pid']} on {holder['host']})" if holder else ""
                raise OutputLocked(
                    f"{self.output}: another run is writing there{who}; wait for it to end"
                ) from None
            return

    def _holder(self) -> dict[str, Any]:
        try:
            holder = json.loads((self.output / _HOLDER_FILE).read_bytes())
        except (OSError, ValueError):
            return {}
        return holder if isinstance(holder, dict) and {"pid", "host"} <= holder.keys() else {}


def _is_dead(holder: dict[str, Any]) -> bool:
    if not holder or holder["host"] != socket.gethostname() or not isinstance(holder["pid"], int):
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
