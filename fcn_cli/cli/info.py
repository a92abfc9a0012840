"""``fcn info``: print versions, devices, weights and threads."""

from __future__ import annotations

import sys

from . import weights
from .console import write_line


def info() -> None:
    """Print versions, devices, cached weights and thread settings."""
    from . import environment

    for name, value in environment.describe():
        write_line(f"{name:14}{value}", sys.stdout)
    weights.list_weights()
