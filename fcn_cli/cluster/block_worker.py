"""The actor: takes a block of photos, segments them as a plain run does, writes their files."""

from __future__ import annotations

import pickle
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__
from ..common.errors import DeviceLost, Failure, FailureKind, FcnError, RequestError
from ..common.output_layout import find_kind
from ..inputs import decoder
from ..inputs.discovery import Source
from ..outputs import record
from ..outputs.directory import OutputDirectory
from ..outputs.looks import Look
from ..outputs.open_store import open_store
from ..outputs.record import Record
from ..outputs.write_queue import WriteQueue
from ..runs.prediction_writer import PredictionWriter
from ..runs.request import PredictionRequest
from ..runs.resume_plan import Step
from .collector import Collector
from .ledger import DEATHS_TO_FAIL, Problem
from .shared_output import SharedOutput

if TYPE_CHECKING:
    # torch comes with these.
    from ..inference.engine import Engine
    from ..inputs.decode_pool import DecodePool
    from ..inputs.decoded_photo import DecodedPhoto
    from ..models.loading import LoadedModel


@dataclass(frozen=True)
class Job:
    """What an actor needs to know of a run. `prediction` has its own threads, workers and device."""

    output: SharedOutput
    kinds: Sequence[str]
    look: Look
    fingerprint: str
    prediction: PredictionRequest
    version: str = __version__


class BlockWorker:
    """Segments blocks of photos; Ray Data makes one in each actor.

    Parameters
    ----------
    job
        What is to be done.
    network
        A reference to the network with its weights (a `LoadedModel`).
    ledger
        The run's `Ledger`, as an actor.
    """

    def __init__(self, job: Job, network: Sequence[Any], ledger: Any) -> None:
        self._job = job
        self._ledger = ledger
        self._engine: Engine | None = None
        decoder.prepare_process(job.prediction.decoding.max_pixels)
        _hide_main_module()
        try:
            self._engine = self._prepare(network[0])
        except FcnError as error:
            self._give_up(error)

    def __call__(self, table: Any) -> dict[str, Any]:
        """Segment one block.

        Parameters
        ----------
        table
            A pyarrow table: ``photo``, the place in the run, and ``step``, a pickled `Step`.

        Returns
        -------
        dict
            ``photo``: which of them have records now.
        """
        steps = {
            photo: pickle.loads(step)  # noqa: S301 - from our own driver
            for photo, step in zip(
                table.column("photo").to_pylist(), table.column("step").to_pylist(), strict=True
            )
        }
        done: list[int] = []
        if self._engine is not None:
            done = _Block(self._job, self._engine, self._ledger, steps, self._give_up).segment()
        return {"photo": np.array(done, dtype=np.int64)}

    def _give_up(self, error: FcnError) -> None:
        _wait(self._ledger.give_up.remote(Problem(error.exit_code, f"{error} (on {socket.gethostname()})")))

    def _prepare(self, network: Any) -> Engine:
        job = self._job
        if job.version != __version__:
            raise RequestError(f"fcn {__version__} is installed here, and {job.version} where the run began")
        job.output.check()
        from ..inference import engine, execution
        from ..inference.upsampling import PredictionOptions

        chosen = execution.resolve_execution(job.prediction.inference)
        loaded: LoadedModel = _wait(network)
        options = PredictionOptions(
            any(not find_kind(kind).from_labels for kind in job.kinds),
            job.prediction.inference.min_confidence,
        )
        made = engine.Engine(loaded, chosen, options, job.prediction.inference.views)
        _wait(
            self._ledger.ready.remote(
                {
                    **chosen.as_json(),
                    "batch_size": chosen.batch_size,
                    "workers": job.prediction.decoding.workers,
                }
            )
        )
        return made


class _Block:
    """One block of photos in an actor; see `segment`."""

    def __init__(
        self, job: Job, engine: Engine, ledger: Any, steps: Mapping[int, Step], give_up: Any
    ) -> None:
        self._job = job
        self._engine = engine
        self._ledger = ledger
        self._steps = steps
        self._give_up = give_up
        self._block = next(iter(steps))
        self._photo_of = {step.image: photo for photo, step in steps.items()}
        self._is_stopping = False

    def segment(self) -> list[int]:
        """Segment what is left of the block; return the photos that have records."""
        state = _wait(self._ledger.begin_block.remote(self._block, list(self._steps)))
        if state is None:
            return []
        collector = Collector(self._ledger, self._block, self._photo_of)
        for photo in sorted(state.killers):
            step = self._steps[photo]
            failed = self._killed(step)
            collector.append([] if step.kinds else [failed])
            collector.finished(failed)
        collector.send()
        rest = [p for p in self._steps if p not in state.done | state.killers | state.suspects]
        parts = [[photo] for photo in sorted(state.suspects)] + ([rest] if rest else [])
        try:
            for part in parts:
                if not self._is_stopping:
                    self._segment([self._steps[photo] for photo in part], collector)
        except FcnError as error:
            self._give_up(error)
        _wait(self._ledger.end_block.remote(self._block))
        return sorted({*state.done, *collector.sent})

    def _segment(self, steps: Sequence[Step], collector: Collector) -> None:
        """Segment photos of the block; all that are begun are recorded at the end."""
        from ..runs.prediction_stream import open_pool, predict

        job, engine = self._job, self._engine
        sources = [step.source for step in steps if step.source is not None]
        decoding = job.prediction.decoding
        folder = OutputDirectory(open_store(job.output.directory), job.look)
        # This process has threads, so the decoding workers start from a clean one.
        with (
            WriteQueue(folder, collector, collector.finished, decoding.max_pixels) as writes,
            open_pool(sources, decoding, clean=True) as pool,
        ):
            to_complete = {step.image: step for step in steps if step.kinds}
            writer = PredictionWriter(writes, job.kinds, job.fingerprint, to_complete)
            lost: DeviceLost | None = None
            try:
                for batch in predict(self._taken_up(pool, sources), engine):
                    if batch:
                        writer.write(batch, engine.execution)
                    writes.commit()
                    collector.send()
            except DeviceLost as error:
                # The photos before are complete, and are recorded.
                lost = error
            writes.commit(everything=True)
            collector.send()
            if lost is not None:
                raise lost

    def _taken_up(self, pool: DecodePool, sources: Sequence[Source]) -> Iterator[DecodedPhoto | None]:
        """Yield decoded photos, each marked as in hand before it can do this process any harm."""
        photos = iter(pool)
        for source in sources:
            # Without workers it is this process that decodes.
            if not pool.workers and not self._take_up(source):
                return
            photo = next(photos)
            while photo is None:
                yield None
                photo = next(photos)
            if pool.workers and photo.pixels is not None and not self._take_up(source):
                return
            yield photo

    def _take_up(self, source: Source) -> bool:
        is_to_begin: bool = _wait(self._ledger.take_up.remote(self._block, self._photo_of[source.image]))
        self._is_stopping = not is_to_begin
        return is_to_begin

    def _killed(self, step: Step) -> Record:
        assert step.source is not None  # noqa: S101 - the network was to segment it
        begun = record.begin(step.source, self._job.fingerprint)
        failure = Failure(
            FailureKind.WORKER_DIED,
            f"{DEATHS_TO_FAIL} actors of Ray died with it in hand; the next run tries it again",
        )
        return record.finish(begun, failure)


def _wait(reference: Any) -> Any:
    """Return what an actor's method returned."""
    import ray

    return ray.get(reference)


def _hide_main_module() -> None:
    """Keep decoding workers from importing Ray's main script, and Ray with it, each time one starts."""
    main = sys.modules["__main__"]
    if hasattr(main, "__file__"):
        del main.__file__
