"""Identify processes on this and other machines, and tell whether they are alive."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any

_STATE, _TICKS = 0, 19
"""Places in `_stat_fields`: the process's state, and when it was started, in clock ticks since boot."""


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process: its number, its host, and when it was started, in the kernel's clock ticks since boot.

    `ticks` tells the process from a later one with the same number; it is None where it cannot be read.
    """

    pid: int
    host: str
    ticks: int | None = None

    @classmethod
    def current(cls) -> ProcessIdentity:
        """Return this process."""
        fields = _stat_fields(os.getpid())
        return cls(os.getpid(), socket.gethostname(), int(fields[_TICKS]) if fields else None)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ProcessIdentity:
        """Read an identity; raise KeyError, TypeError or ValueError when it is damaged."""
        pid, ticks = int(value["pid"]), value.get("ticks")
        if pid <= 0:
            # To the kernel such numbers are groups of processes.
            raise ValueError(pid)
        return cls(pid, str(value["host"]), int(ticks) if ticks is not None else None)

    def as_json(self) -> dict[str, Any]:
        """Return the identity as JSON."""
        return asdict(self)

    def is_alive(self) -> bool | None:
        """Say whether the process still runs; None where this machine cannot tell."""
        # On Windows `os.kill(pid, 0)` would send the process a Ctrl-C.
        if self.host != socket.gethostname() or os.name == "nt":
            return None
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):
            return False
        except OSError:
            pass  # It runs, and belongs to another user.
        fields = _stat_fields(self.pid)
        if not fields:
            return True
        # A zombie has ended; only its parent has not asked how.
        return fields[_STATE] != "Z" and self.ticks in {None, int(fields[_TICKS])}

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def process_table() -> str | None:
    """Return what tells this machine's table of processes, since its boot, from every other; None if unknown.

    Containers of one machine have tables of their own, and so the same process numbers.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def end_with_parent() -> None:
    """End this process with the one that started it, however that ends; for a process of `multiprocessing`.

    Its parent in the system's eyes can be a fork server. That lives as long as what it forked, so without
    this both would stay for ever.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid != os.getppid():
        threading.Thread(target=_end_after, args=(parent.sentinel,), name="fcn-parent", daemon=True).start()


def _end_after(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _stat_fields(pid: int) -> list[str]:
    """Return ``/proc/PID/stat`` from its third field on (see proc_pid_stat(5)); empty where there is none."""
    try:
        # The second field, the program's name, may contain spaces and parentheses.
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
