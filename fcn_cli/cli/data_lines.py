"""Data on stdout, line by line: records with ``--json``, and the plan of a dry run."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ..outputs.json_text import printable_utf8, to_line
from ..outputs.record import begin
from ..runs.plan import Prune
from .console import one_line

if TYPE_CHECKING:
    from ..runs.plan import Plan, Step


class DataLines:
    """Writes lines to stdout.

    Parameters
    ----------
    flush
        Whether each line shall reach its reader at once.
    """

    def __init__(self, *, flush: bool) -> None:
        self._flush = flush

    def write_json(self, value: dict[str, Any]) -> None:
        """Write an object as a line of JSON."""
        self.write(to_line(value))

    def write(self, line: str) -> None:
        """Write a line."""
        sys.stdout.write(line + "\n")
        if self._flush:
            sys.stdout.flush()


def step_as_fields(step: Step) -> str:
    """Return a step of a plan as action, image and reason, separated by tabs."""
    return "\t".join((step.action, _field(step.image), _field(step.reason)))


def step_as_json(step: Step, plan: Plan) -> str:
    """Return a step of a plan as a line of JSON: the image's record, with the action and the reason."""
    value: dict[str, Any] = {"action": str(step.action)}
    if (record := plan.record_of(step)) is not None:
        value |= record.as_json()
    elif not isinstance(step, Prune):
        value |= begin(step.source, "").as_json()
        for unknown in ("status", "fingerprint", "finished"):
            value[unknown] = None
    return to_line({**value, "reason": printable_utf8(step.reason)})


def _field(text: str) -> str:
    """Return text for a tab-separated field: without tabs and line ends."""
    return one_line(printable_utf8(text))
