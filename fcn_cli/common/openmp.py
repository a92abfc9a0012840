"""What OpenMP's threads do while they wait. OpenMP reads it when torch loads it, so it is chosen before."""

from __future__ import annotations

import os

_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def let_waiting_threads_sleep() -> None:
    """Choose for this process and its children, unless the user has: what spins takes the CPUs of others.

    On a machine that does other work, whoever computes then waits for whoever waits.
    """
    if not chosen():
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def chosen() -> dict[str, str]:
    """Return the variables that say what waiting threads do; processes elsewhere need them too."""
    return {name: os.environ[name] for name in _VARIABLES if name in os.environ}
