"""The CPUs and memory that this process may use, by affinity and cgroup rather than the host's."""

from __future__ import annotations

import contextlib
import gc
import math
import os
import platform
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")

_MEMORY_FILES = {
    "": ("memory.max", "memory.current"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes"),
}
"""The limit on memory, and what is used of it: in cgroups of version 2, and in version 1's controller."""

_OPENMP = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""OpenMP reads them when torch loads it, so they are chosen before."""

_HELPER_NICENESS = 10
_MAX_NICENESS = 19
_OOM_SCORE = 800


@contextlib.contextmanager
def without_cycle_collection() -> Iterator[None]:
    """Do not look for reference cycles in the context, which makes many objects and no cycles."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextlib.contextmanager
def objects_that_stay() -> Iterator[None]:
    """Do not look for reference cycles while modules are imported or a network is built, nor in them later.

    Looking through all their objects, again and again, takes a fifth of importing torch.
    """
    with without_cycle_collection():
        yield
        gc.freeze()


@contextlib.contextmanager
def without_old_objects_in_collections() -> Iterator[None]:
    """Let the collection of reference cycles pass over all objects that exist: modules and the network."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def cpu_count() -> int:
    """Return the number of CPUs that this process may use: its affinity, limited by the cgroup's quota."""
    count, quota = affinity(), cgroup_cpus()
    return max(1, min(count, math.ceil(quota))) if quota else count


def affinity() -> int:
    """Return the number of CPUs in the affinity of this process."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def available_memory() -> int | None:
    """Return the bytes that can be allocated without swapping, or None where this is unknown."""
    amounts = [amount for amount in (_host_available(), _cgroup_available()) if amount is not None]
    return min(amounts, default=None)


def describe() -> str:
    """Return the number of CPUs and the name of the processor, in one line."""
    name = _cpuinfo("model name") or platform.processor() or platform.machine()
    return f"{cpu_count()} x {name}"


def most_descriptors() -> int:
    """Return how many files this process may have open at once."""
    if sys.platform == "win32":
        return sys.maxsize
    import resource

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit


def limit_memory(bytes_more: int) -> None:
    """Limit the private memory of this process to `bytes_more` beyond its current use.

    If the machine still runs out of memory, Linux kills this process first. Does nothing on other systems.
    """
    if sys.platform != "linux":
        return
    import resource

    used = next(
        (
            int(line.split()[1]) * 1024
            for line in _read(Path("/proc/self/status")).splitlines()
            if line.startswith("VmData:")
        ),
        None,
    )
    if used is not None:
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        limit = used + bytes_more
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(
                resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard)
            )
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))


def lower_thread_priority() -> None:
    """Lower the calling thread's priority below that of the network's threads. Linux only.

    The network's threads work in step: one that waits for a decoder or an encoder delays all of them.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            thread = threading.get_native_id()
            niceness = os.getpriority(os.PRIO_PROCESS, thread) + _HELPER_NICENESS
            os.setpriority(os.PRIO_PROCESS, thread, min(niceness, _MAX_NICENESS))


def cgroup_cpus() -> float | None:
    """Return the cgroup's CPU quota in CPUs, or None without a quota."""
    for folder in _own_cgroups():
        fields = _read(folder / "cpu.max").split()
        if len(fields) == 2 and fields[0] != "max":
            return int(fields[0]) / int(fields[1])
    quota = _read(_CGROUP / "cpu" / "cpu.cfs_quota_us").strip()
    period = _read(_CGROUP / "cpu" / "cpu.cfs_period_us").strip()
    if quota and period and int(quota) > 0:
        return int(quota) / int(period)
    return None


def _cpuinfo(field: str) -> str:
    """Return the first value of a field in ``/proc/cpuinfo``, or an empty string."""
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return ""


def _host_available() -> int | None:
    for line in _read(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _cgroup_available() -> int | None:
    amounts = []
    for controller, names in _MEMORY_FILES.items():
        for folder in _own_cgroups(controller):
            limit, used = (_read(folder / name).strip() for name in names)
            if limit.isdigit() and used.isdigit():
                # The page cache counts as used, but is reclaimed when memory is needed.
                reclaimable = sum(
                    int(line.split()[1])
                    for line in _read(folder / "memory.stat").splitlines()
                    if line.startswith(("active_file ", "inactive_file "))
                )
                amounts.append(max(0, int(limit) - int(used) + reclaimable))
    return min(amounts, default=None)


def _own_cgroups(controller: str = "") -> list[Path]:
    """Return the cgroup of this process and its parents, innermost first: of version 2, or a controller's."""
    top = _CGROUP / controller
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        _, controllers, place = line.split(":", 2)
        if controller in controllers.split(","):
            own = top / place.lstrip("/")
            # A container sees its own cgroup at the top, whatever the host calls it.
            return [folder for folder in (own, *own.parents) if folder.is_relative_to(top)]
    return []


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def let_waiting_threads_sleep() -> None:
    """Choose for this process and its children, unless the user has: what spins takes the CPUs of others.

    On a machine that does other work, whoever computes then waits for whoever waits.
    """
    if not openmp_variables():
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def openmp_variables() -> dict[str, str]:
    """Return the variables that say what waiting threads do; processes elsewhere need them too."""
    return {name: os.environ[name] for name in _OPENMP if name in os.environ}
