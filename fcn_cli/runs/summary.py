"""The summary of a run: its counts, and how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..common.errors import ExitCode, FcnError
from ..common.palettes import Palette
from ..common.shard import Shard
from ..common.signals import Interrupted
from ..outputs.json_text import printable_utf8
from ..outputs.record import Record
from ..outputs.run_file import Counts
from ..outputs.statistics import Totals

_REFUSED_KEYS = ("image", "image_bytes", "source", "source_bytes", "error")


@dataclass
class Summary:
    """The counts of a run: `total` photos = `done` + `skipped` + `failed` (+ `left` when it ended early).

    Of the photos done, the network segmented `segmented` in `seconds`; the others got more kinds of output.
    `failures` are the records of all failed photos; `known_failures` are the images among them that failed in
    an earlier run too and have not changed. `refused` photos count as failed, and are not in the journal.
    `stage_seconds` says how long the run waited for each stage: decoding, network, writing.
    `pruned` photos are in none of these counts. `stopped` is the error that ended the run early. `how` says
    how the run computed: device, precision and the like. All counts are those of its `shard`, if it is one.
    `watched` says that it was a watch. `end` is when it ended, in UTC; None while it goes on.
    """

    output: str
    class_names: Sequence[str] = ()
    palette: Palette | None = None
    total: int = 0
    done: int = 0
    segmented: int = 0
    skipped: int = 0
    failed: int = 0
    seconds: float = 0.0
    stage_seconds: dict[str, float] = field(default_factory=dict)
    failures: list[Record] = field(default_factory=list)
    known_failures: set[str] = field(default_factory=set)
    refused: list[Record] = field(default_factory=list)
    pruned: int = 0
    totals: Totals = field(default_factory=Totals)
    ignored: str = ""
    stopped: FcnError | Interrupted | None = None
    how: dict[str, Any] = field(default_factory=dict)
    watched: bool = False
    shard: Shard | None = None
    end: str | None = None

    @property
    def left(self) -> int:
        """The number of photos that the run did not reach."""
        return self.total - self.done - self.skipped - self.failed

    @property
    def counts(self) -> Counts:
        """The counts as ``run.json`` has them."""
        return Counts(self.done + self.skipped, self.failed, self.left)

    @property
    def images_per_second(self) -> float | None:
        """Photos segmented per second, start-up not counted."""
        return self.segmented / self.seconds if self.segmented and self.seconds else None

    @property
    def exit_code(self) -> int:
        """The exit code of the process."""
        if self.stopped is not None:
            return self.stopped.exit_code
        return ExitCode.SOME_FAILED if self.failed else ExitCode.OK

    def as_json(self) -> dict[str, Any]:
        """Return the entry ``run`` of ``summary.json``."""
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
            "end": self.end,
            "seconds": round(self.seconds, 3),
            "images_per_second": round(rate, 3) if rate else None,
            "stage_seconds": {stage: round(seconds, 3) for stage, seconds in self.stage_seconds.items()},
            **self.how,
        }
