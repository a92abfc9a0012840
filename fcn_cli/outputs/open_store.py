"""From the name of an output directory to the store that has its files."""

from __future__ import annotations

from pathlib import Path

from .output_store import LocalStore, OutputStore


def open_store(directory: str) -> OutputStore:
    """Return an output directory, which need not exist."""
    return LocalStore(Path(directory))
