"""Times in UTC with whole seconds, as records and ``run.json`` have them: ``2026-11-24T03:00:00Z``."""

from __future__ import annotations

from datetime import UTC, datetime

_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


def now() -> str:
    """Return the time now."""
    return datetime.now(UTC).strftime(_FORMAT)


def seconds_of(time: str) -> float | None:
    """Return a time in seconds since 1970, or None when it is damaged."""
    try:
        return datetime.strptime(time, _FORMAT).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
