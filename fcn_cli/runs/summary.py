"""How a run ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..common.errors import ExitCode, FcnError
from ..common.palettes import Palette
from ..outputs.record import Record, printable_utf8
from ..outputs.statistics import Totals

_REFUSED_KEYS = ("image", "image_bytes", "source", "source_bytes", "error")


@dataclass
class Summary:
    """How a run ended: `total` photos = `done` + `skipped` + `failed` (+ `left` when it ended early).

    Of those done, `segmented` went through the network, in `seconds`; the others had kinds of output added.
    `failures` are the records of all failed photos; `known_failures` the images among them that failed in an
    earlier run too and have not changed. `refused` photos are failed, and not in the journal. `pruned` photos
    are in none of these counts.
    """

    output: Path
    class_names: Sequence[str] = ()
    palette: Palette | None = None
    total: int = 0
    done: int = 0
    segmented: int = 0
    skipped: int = 0
    failed: int = 0
    seconds: float = 0.0
    failures: list[Record] = field(default_factory=list)
    known_failures: set[str] = field(default_factory=set)
    refused: list[Record] = field(default_factory=list)
    pruned: int = 0
    totals: Totals = field(default_factory=Totals)
    ignored: str = ""
    stopped: FcnError | None = None
    how: dict[str, Any] = field(default_factory=dict)

    @property
    def left(self) -> int:
        """Photos not reached."""
        return self.total - self.done - self.skipped - self.failed

    @property
    def images_per_second(self) -> float | None:
        """Photos segmented a second, from the end of the start-up."""
        return self.segmented / self.seconds if self.segmented and self.seconds else None

    @property
    def exit_code(self) -> int:
        """What the process should return."""
        if self.stopped is not None:
            return self.stopped.exit_code
        return ExitCode.SOME_FAILED if self.failed else ExitCode.OK

    def as_json(self) -> dict[str, Any]:
        """Return what ``summary.json`` says of the run."""
        rate = self.images_per_second
        return {
            "images": self.total,
            "ok": self.done,
            "skipped": self.skipped,
            "failed": self.failed,
            "not_reached": self.left,
            "pruned": self.pruned,
            "refused": [
                {key: value for key, value in record.as_json().items() if key in _REFUSED_KEYS}
                for record in self.refused
            ],
            "stopped": printable_utf8(str(self.stopped)) if self.stopped else None,
            "seconds": round(self.seconds, 3),
            "images_per_second": round(rate, 3) if rate else None,
            **self.how,
        }
