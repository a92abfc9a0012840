"""Keeps ``run.json`` while a run works, for ``fcn status``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from types import NoneType

from ..common.errors import ExitCode, FcnError, OutputLost
from ..common.shard import Shard
from ..common.signals import Interrupted
from ..outputs.journal import Journal
from ..outputs.output_store import OutputStore
from ..outputs.run_file import Counts, RunFile
from .plan import Plan
from .summary import Summary


class RunProgress:
    """Writes ``run.json`` when the work of a run, or a batch of a watch, begins, and when the context ends.

    A run that finds nothing to do writes when it ended, too.

    Parameters
    ----------
    output
        The output directory.
    kinds
        The kinds of output that the run writes.
    summary
        Returns the run's counts.
    shard
        The shard that runs, or None. Its file also has what the merge adds up.
    """

    def __init__(
        self,
        output: OutputStore,
        kinds: Sequence[str],
        summary: Callable[[], Summary],
        shard: Shard | None = None,
    ) -> None:
        self._output = output
        self._shard = shard
        self._kinds = tuple(kinds)
        self._summary = summary
        self._file: RunFile | None = None

    def begin(self, journal: Journal, plan: Plan, counts: Counts) -> None:
        """Write who runs and what is to be done; the journal only grows from now on.

        Raises
        ------
        OutputLost
            The file cannot be written.
        """
        began = self._file.start if self._file is not None else None
        self._file = RunFile.begin(self._kinds, journal.size_bytes, counts, began)
        if plan.work:
            with OutputLost.when_refused(self._output):
                self._file.save(self._output, self._shard)

    def __enter__(self) -> RunProgress:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if self._file is None or not isinstance(error, (Exception, Interrupted, NoneType)):
            return
        # The results do not depend on this file: a full or lost disk was or will be reported by others.
        with contextlib.suppress(OSError, OutputLost):
            summary = self._summary()
            code: int = summary.exit_code
            stopped = str(summary.stopped) if summary.stopped is not None else None
            if isinstance(error, (FcnError, Interrupted)):
                code, stopped = error.exit_code, str(error)
            elif error is not None:
                code, stopped = ExitCode.BUG, f"a bug in fcn ({type(error).__name__}: {error})"
            for_merge = summary.as_json() if self._shard is not None else None
            self._file.ended(summary.counts, code, stopped, for_merge).save_ending(self._output, self._shard)
