"""The actor: segments blocks of images, writes their files, and yields their records."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import __version__
from ..common import swept_directory
from ..common.errors import DeviceLost, ExitCode, FcnError, RequestError
from ..inputs import decoder
from ..outputs.directory import OutputDirectory
from ..outputs.label_rules import ResolvedRules
from ..outputs.looks import Style
from ..outputs.record import Record
from ..outputs.write_queue import Outcome, WriteQueue
from ..runs.plan import Complete, NetworkStep
from ..runs.prediction_writer import PredictionWriter
from ..runs.request import PredictionRequest
from .shared_output import OpenedOutput, SharedOutput

if TYPE_CHECKING:
    # torch comes with these.
    from ..inference.engine import Engine
    from ..inputs.decoder import DecodedImage
    from ..models.weights import LoadedModel


@dataclass(frozen=True)
class Job:
    """What an actor needs to know of a run. `prediction` has its own threads, workers and device."""

    output: SharedOutput
    types: Sequence[str]
    look: Style
    fingerprint: str
    rules: ResolvedRules
    prediction: PredictionRequest
    version: str = __version__


class Done(NamedTuple):
    """What became of the image in this place of the run."""

    place: int
    outcome: Outcome


class Begun(NamedTuple):
    """The image that comes next, alone: the actor waits for `Worker.go_on`."""

    place: int


class Problem(NamedTuple):
    """Why an actor cannot work: the exit code, and the message."""

    exit_code: ExitCode
    text: str


Message = Sequence[Done] | Begun | Problem


class Worker:
    """Segments blocks of images in an actor, one block after the other.

    `segment` occupies one of the actor's two threads; the other takes `go_on` and `stop`. `network` is a
    reference, in a list, to the `LoadedModel`.
    """

    def __init__(self, job: Job, network: Sequence[Any]) -> None:
        self._job = job
        self._network = network
        self._engine: Engine | None = None
        self._output: OpenedOutput | None = None
        self._words = threading.Semaphore(0)
        self._is_stopping = threading.Event()

    def prepare(self) -> dict[str, object] | Problem:
        """Load the network; return how this actor computes, or why it cannot."""
        import ray

        job = self._job
        decoder.prepare_process(job.prediction.decoding.max_pixels)
        _hide_main_module()
        try:
            if job.version != __version__:
                raise RequestError(
                    f"fcn {__version__} is installed here, and {job.version} where the run began"
                )
            self._output = job.output.open()
            from ..inference import engine, execution

            chosen = execution.resolve_execution(job.prediction.inference)
            network: LoadedModel = ray.get(self._network[0])
            options = job.prediction.wanted(job.types, network.class_names)
            self._engine = engine.Engine(network, chosen, options, job.prediction.inference.views)
        except FcnError as error:
            return _problem(error)
        return {
            **chosen.as_json(),
            "batch_size": chosen.batch_size,
            "workers": job.prediction.decoding.workers,
        }

    def segment(self, steps: Mapping[int, NetworkStep], *, singly: bool) -> Iterator[Message]:
        """Segment one block: steps by their place in the run.

        Yields records, in the order of the images, once their files are on disk; a `Problem` ends it. With
        `singly`, one image at a time: after each `Begun`, wait for `go_on`.
        """
        try:
            yield from self._segment(steps, singly=singly)
        except FcnError as error:
            yield _problem(error)

    def go_on(self) -> None:
        """Let `segment` begin the image that it has said comes next."""
        self._words.release()

    def stop(self) -> None:
        """Let `segment` finish the images in flight and begin no others."""
        self._is_stopping.set()
        self._words.release()

    def end(self) -> None:
        """Remove temporary directories; nothing comes after this."""
        swept_directory.remove_all()

    def _segment(self, steps: Mapping[int, NetworkStep], *, singly: bool) -> Iterator[Message]:
        from ..runs.prediction_stream import open_pool, predictions

        job, engine, output = self._job, self._engine, self._output
        assert engine is not None and output is not None  # noqa: S101, PT018 - `prepare` came first
        folder = OutputDirectory(output.store, job.look)
        sources = [step.source for step in steps.values()]
        decoding = job.prediction.decoding
        records = _Records({step.image: place for place, step in steps.items()})
        lost: DeviceLost | None = None
        # This process has threads, so the decoding workers start from a clean one.
        with (
            WriteQueue(folder, records, records.finished, decoding) as writes,
            open_pool(sources, decoding, clean=True) as pool,
        ):
            to_complete = {step.image: step for step in steps.values() if isinstance(step, Complete)}
            writer = PredictionWriter(writes, job.types, job.fingerprint, to_complete, job.rules)
            images = iter(pool)
            groups: Iterable[int | None] = steps if singly else (None,)
            for place in groups:
                if place is not None:
                    yield Begun(place)
                    self._words.acquire()
                if self._is_stopping.is_set():
                    break
                taken = self._until_stopped(images) if place is None else iter([_next(images)])
                try:
                    for batch in predictions(taken, engine):
                        output.check()
                        if batch:
                            writer.write(batch, engine.execution)
                        writes.commit(everything=singly)
                        if done := records.take():
                            yield done
                except DeviceLost as error:
                    # The images before are complete, and are recorded.
                    lost = error
                    break
            writes.commit(everything=True)
        if done := records.take():
            yield done
        if lost is not None:
            raise lost

    def _until_stopped(self, images: Iterator[DecodedImage | None]) -> Iterator[DecodedImage | None]:
        for image in images:
            if self._is_stopping.is_set():
                return
            yield image


class _Records:
    """Takes the journal's place in an actor; the driver keeps the journal, and has retracted earlier records.

    `place_of` maps an image to its place in the run.
    """

    path = "the run's journal"

    def __init__(self, place_of: Mapping[str, int]) -> None:
        self._place_of = place_of
        self._done: list[Done] = []

    def get(self, image: str) -> Record | None:  # noqa: ARG002 - as the journal has it
        return None

    def owner(self, output: str) -> str | None:  # noqa: ARG002 - as the journal has it
        return None

    def append(self, records: Iterable[Record]) -> None:
        """Do nothing: `finished` comes for each of them, and for others."""

    def finished(self, outcome: Outcome) -> None:
        """Take what became of an image whose files are on disk, or which failed."""
        self._done.append(Done(self._place_of[outcome.record.image], outcome))

    def take(self) -> list[Done]:
        done, self._done = self._done, []
        return done


def _next(images: Iterator[DecodedImage | None]) -> DecodedImage:
    image = next(images)
    while image is None:
        image = next(images)
    return image


def _problem(error: FcnError) -> Problem:
    return Problem(error.exit_code, f"{error} (on {socket.gethostname()})")


def _hide_main_module() -> None:
    """Keep decoding workers from importing Ray's main script, and Ray with it, each time one starts."""
    main = sys.modules["__main__"]
    if hasattr(main, "__file__"):
        del main.__file__
