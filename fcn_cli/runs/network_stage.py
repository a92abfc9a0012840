"""The main loop of a run: decoding workers, network, write queue."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from ..common import resources
from ..common.errors import DeviceLost, OutputLost
from ..common.signals import Stop
from ..common.wording import counted
from ..inference.options import InferenceOptions
from ..models.weights import LoadedModel, WeightsFile
from ..outputs.directory import OutputDirectory
from ..outputs.write_queue import WriteQueue
from .observers import RunObserver
from .plan import Complete, NetworkStep, Plan
from .prediction_writer import GiveBack, PredictionWriter
from .report import RunReport
from .request import ResolvedRequest, SegmentRequest

if TYPE_CHECKING:
    # torch comes with these: a run with nothing to do never imports them.
    from ..inference.engine import Engine
    from ..inference.execution import ExecutionConfig as Execution
    from ..inputs.decoder import DecodedImage
    from .prediction_stream import Prediction, StageClock


class EarlierExecutions:
    """Counts the images that are done by device and precision: ``auto`` may stand for others now."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, plan: Plan) -> None:
        """Count the images of a plan that are done."""
        for (device, precision), count in plan.executions.items():
            self._counts[f"{device} in {precision}"] += count

    def warning(self, device: str, precision: str) -> str | None:
        """Return what to say when this run computes otherwise than earlier ones did; else None."""
        own = f"{device} in {precision}"
        other = {execution: count for execution, count in self._counts.items() if execution != own}
        if not other:
            return None
        counts = ", ".join(f"{count} on {execution}" for execution, count in sorted(other.items()))
        return (
            f"this run computes on {own}; existing masks: {counts}. Single pixels can differ; --device "
            "and --precision make them the same"
        )


class NetworkStage:
    """Segments the images of plans that need the network: loads it once, and runs the loop.

    A watch sets `give_back`, which takes images back that changed or vanished since they were found. Without
    it they fail.
    """

    def __init__(
        self,
        request: SegmentRequest,
        resolved: ResolvedRequest,
        folder: OutputDirectory,
        observer: RunObserver,
        stop: Stop,
    ) -> None:
        self._request = request
        self._inference = request.prediction.inference
        self._resolved = resolved
        self._folder = folder
        self._observer = observer
        self.stop = stop
        self.give_back: GiveBack | None = None
        self._kernels = ""
        self._engine: Engine | None = None
        self._how: dict[str, Any] = {}
        self.earlier = EarlierExecutions()

    def run(self, steps: Sequence[NetworkStep], plan: Plan, writes: WriteQueue, report: RunReport) -> None:
        """Segment the images of these steps of a plan, in order; `report` counts them."""
        execution = file = None
        names_gpu = self._inference.device not in {"auto", "cpu"}
        if self._engine is None and not names_gpu:
            # Missing weights end the run before torch is imported.
            file = self._resolved.model.weights_file(self._observer.downloading)
        with resources.objects_that_stay():
            from .prediction_stream import StageClock, open_pool, predictions

        sources = [step.source for step in steps]
        writer = PredictionWriter(
            writes,
            self._request.output.types,
            self._resolved.fingerprint,
            {step.image: step for step in steps if isinstance(step, Complete)},
            self._resolved.rules,
            self.give_back,
        )
        # The workers start before anything of CUDA or of torch's threads.
        watching = self.give_back is not None
        with open_pool(sources, self._request.prediction.decoding, watching=watching) as pool:
            images = iter(pool)
            if self._engine is None and names_gpu:
                # A GPU that is not there ends the run before its weights are downloaded.
                execution = _resolve(self._inference)
                file = self._resolved.model.weights_file(self._observer.downloading)
            doubtful = not self._request.resume.overwrite and report.all_failed_before(steps)
            if self._engine is None and doubtful:
                first = self._first_decoded(images, writer, writes, report)
                if first is None:
                    return
                images = chain([first], images)
            if file is not None:
                self._engine = self._load_engine(
                    file, execution or _resolve(self._inference), plan, pool.workers
                )
            engine = self._engine
            assert engine is not None  # noqa: S101 - loaded now or before
            summary = report.summary
            summary.class_names = self._resolved.rules.names(engine.network.class_names)
            summary.how = dict(self._how)
            started, done_before, clock = time.monotonic(), summary.done, StageClock()
            with self.stop, resources.without_old_objects_in_collections():
                try:
                    with contextlib.closing(predictions(images, engine, clock=clock)) as batches:
                        self._write_all(clock.each("network", batches), writer, writes, clock, report)
                except DeviceLost as error:
                    # The images before are complete, and are recorded.
                    summary.stopped = error
                with clock.stage("writing"):
                    writes.commit(everything=True)
            summary.stage_seconds = clock.seconds
            summary.seconds = time.monotonic() - started
            summary.segmented = summary.done - done_before

    def _first_decoded(
        self,
        images: Iterator[DecodedImage | None],
        writer: PredictionWriter,
        writes: WriteQueue,
        report: RunReport,
    ) -> DecodedImage | None:
        """Record failures up to the first image that can be decoded; only that one needs the network."""
        with self.stop:
            for image in images:
                if image is None:
                    self._observer.waiting()
                elif image.failure is None:
                    return image
                else:
                    writer.fail(image, image.failure)
                writes.commit()
                if self.stop.signum is not None or report.first_failure is not None:
                    break
            writes.commit(everything=True)
        return None

    def _write_all(
        self,
        batches: Iterable[list[Prediction]],
        writer: PredictionWriter,
        writes: WriteQueue,
        clock: StageClock,
        report: RunReport,
    ) -> None:
        assert self._engine is not None  # noqa: S101 - it makes the predictions
        for batch in batches:
            if batch:
                self._describe_kernels(batch, self._engine)
                writer.write(batch, self._engine.execution)
            else:
                self._observer.waiting()
            with clock.stage("writing"):
                writes.commit()
            self._observer.limited_by(clock.limiting())
            if self.stop.signum is not None or report.first_failure is not None:
                return

    def _describe_kernels(self, batch: Sequence[Prediction], engine: Engine) -> None:
        """Report which kernels computed a batch, unless they are those of the last report."""
        kernels = ", ".join(f"{count} {name}" for name, count in engine.kernels().items())
        pixels = batch[0].image.pixels
        if kernels and kernels != self._kernels and pixels is not None:
            width, height = engine.views.input_size(pixels)
            self._observer.detail(f"layers of {width}x{height}: {kernels}")
            self._kernels = kernels

    @resources.objects_that_stay()
    def _load_engine(self, file: WeightsFile, chosen: Execution, plan: Plan, workers: int) -> Engine:
        from ..inference import engine, execution

        network = self._network(file)
        self._observer.detail(
            f"{network.backbone.name} on {chosen.device}, {chosen.precision}, {chosen.kernels} kernels, "
            f"{counted(chosen.threads, 'thread')}, "
            f"batches of up to {chosen.batch_size}, {counted(workers, 'decoding worker')}"
        )
        self.earlier.add(plan)
        if warning := self.earlier.warning(chosen.device.type, chosen.precision):
            self._observer.warn(warning)
        if note := execution.note(chosen):
            self._observer.note(note)
        self._how.update(
            **chosen.as_json(),
            batch_size=chosen.batch_size,
            workers=workers,
        )
        options = self._request.prediction.wanted(self._request.output.types, network.class_names)
        return engine.Engine(network, chosen, options, self._inference.views)

    def _network(self, file: WeightsFile) -> LoadedModel:
        """Load the network; then the whole request is known to be right: write settings and classes."""
        model = self._resolved.model
        network = model.load(file)
        for note in model.notes(network):
            self._observer.note(note)
        self._request.prediction.rules.resolve(network.class_names)
        names = self._resolved.rules.names(network.class_names)
        self._request.output.look.check(names)
        with OutputLost.when_refused(self._folder.root):
            self._resolved.settings.save(self._folder.root, file.sha256, model.recorded(network))
            self._folder.write_classes(names)
        self._how["weights_sha256"] = file.sha256
        return network


def _resolve(options: InferenceOptions) -> Execution:
    """Decide on device, precision and kernels; refuses what this machine does not have."""
    from ..inference import execution

    return execution.resolve_execution(options)
