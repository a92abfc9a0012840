"""The loop of a run: photos pass the decoding workers and the network, and reach the write queue."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.errors import DeviceLost, OutputLost
from ..common.output_layout import find_kind
from ..common.signals import Stop
from ..common.stage_clock import StageClock
from ..common.wording import counted
from ..models import loading
from ..models.weights import WeightsFile
from ..outputs.directory import OutputDirectory
from ..outputs.write_queue import WriteQueue
from .observers import RunObserver
from .prediction_writer import PredictionWriter
from .request import ResolvedRequest, SegmentRequest
from .resume_plan import ResumePlan, Step
from .run_report import RunReport

if TYPE_CHECKING:
    # torch comes with these: a run with nothing to do never imports them.
    from ..inference.engine import Engine
    from ..inference.execution import ExecutionConfig as Execution
    from .prediction_stream import Prediction


class NetworkStage:
    """Segments the photos of a plan that need the network: loads it, and runs the loop.

    Parameters
    ----------
    request, resolved
        The request, and what exactly it stands for.
    folder
        The output directory.
    report, observer
        Count and report what happens.
    stop
        Says whether a signal asked the run to end.
    """

    def __init__(
        self,
        request: SegmentRequest,
        resolved: ResolvedRequest,
        folder: OutputDirectory,
        report: RunReport,
        observer: RunObserver,
        stop: Stop,
    ) -> None:
        self._request = request
        self._inference = request.prediction.inference
        self._resolved = resolved
        self._folder = folder
        self._report = report
        self._observer = observer
        self._stop = stop
        self._kernels = ""

    def run(self, steps: Sequence[Step], plan: ResumePlan, writes: WriteQueue) -> None:
        """Segment the photos of these steps of a plan, in order."""
        execution = self._execution() if self._inference.device not in {"auto", "cpu"} else None
        # Missing weights end the run before torch is imported.
        file = self._resolved.model.weights_file(self._observer.downloading)
        from .prediction_stream import open_pool, predict

        sources = [step.source for step in steps if step.source is not None]
        writer = PredictionWriter(
            writes,
            self._request.output.kinds,
            self._resolved.fingerprint,
            {step.image: step for step in steps if step.kinds},
        )
        # The workers start before the network is loaded, so before CUDA and torch's threads.
        with open_pool(sources, self._request.prediction.decoding) as pool:
            engine = self._engine(file, execution or self._execution(), plan, pool.workers)
            summary = self._report.summary
            started, done_before, clock = time.monotonic(), summary.done, StageClock()
            with self._stop:
                try:
                    for batch in clock.each("network", predict(clock.each("decoding", pool), engine)):
                        if batch:
                            self._describe_kernels(batch, engine)
                            writer.write(batch, engine.execution)
                        else:
                            self._observer.waiting()
                        with clock.stage("writing"):
                            writes.commit()
                        self._observer.limited_by(clock.limiting())
                        if self._stop.signum is not None or self._report.first_failure is not None:
                            break
                except DeviceLost as error:
                    # The photos before are complete, and are recorded.
                    summary.stopped = error
                with clock.stage("writing"):
                    writes.commit(everything=True)
            summary.stage_seconds = clock.seconds
            summary.seconds = time.monotonic() - started
            summary.segmented = summary.done - done_before

    def _describe_kernels(self, batch: Sequence[Prediction], engine: Engine) -> None:
        """Report which kernels computed a batch, unless they are those of the last report."""
        kernels = ", ".join(f"{count} {name}" for name, count in engine.kernels().items())
        pixels = batch[0].photo.pixels
        if kernels and kernels != self._kernels and pixels is not None:
            width, height = engine.views.input_size(pixels)
            self._observer.detail(f"layers of {width}x{height}: {kernels}")
            self._kernels = kernels

    def _execution(self) -> Execution:
        """Decide on device, precision and kernels; refuses what this machine does not have."""
        from ..inference import execution

        return execution.resolve_execution(self._inference)

    def _engine(self, file: WeightsFile, chosen: Execution, plan: ResumePlan, workers: int) -> Engine:
        from ..inference import engine
        from ..inference.upsampling import PredictionOptions

        network = self._network(file)
        self._observer.detail(
            f"{network.backbone.name} on {chosen.device}, {chosen.precision}, {chosen.kernels} kernels, "
            f"{counted(chosen.threads, 'thread')}, "
            f"batches of up to {chosen.batch_size}, {counted(workers, 'decoding worker')}"
        )
        self._warn_of_other_execution(chosen, plan)
        self._report.summary.how.update(
            device=str(chosen.device),
            precision=chosen.precision,
            kernels=chosen.kernels,
            threads=chosen.threads,
            batch_size=chosen.batch_size,
            workers=workers,
        )
        confidence = any(not find_kind(kind).from_labels for kind in self._request.output.kinds)
        options = PredictionOptions(confidence, self._inference.min_confidence)
        return engine.Engine(network, chosen, options, self._inference.views)

    def _warn_of_other_execution(self, chosen: Execution, plan: ResumePlan) -> None:
        """Warn when ``auto`` stands for another device or precision than for the photos that are done."""
        other: dict[str, int] = {}
        for step in plan.steps:
            if step.record is not None and step.record.ok and step.record.device is not None:
                device = step.record.device.partition(":")[0]
                if (device, step.record.precision) != (chosen.device.type, chosen.precision):
                    execution = f"{device} in {step.record.precision}"
                    other[execution] = other.get(execution, 0) + 1
        if other:
            counts = ", ".join(f"{count} on {execution}" for execution, count in sorted(other.items()))
            self._observer.warn(
                f"this run computes on {chosen.device.type} in {chosen.precision}; of the masks that are "
                f"there: {counts}. They can differ in single pixels; --device and --precision settle it"
            )

    def _network(self, file: WeightsFile) -> loading.LoadedModel:
        """Load the network; then the whole request is known to be right: write settings and classes."""
        model = self._resolved.model
        if model.architecture.note and model.checkpoint is None:
            self._observer.note(model.architecture.note)
        network = model.load(file)
        self._request.output.look.check(network.class_names)
        with OutputLost.when_refused(self._folder.root):
            self._resolved.settings.save(Path(self._folder.root), file.sha256)
            self._folder.write_classes(network.class_names)
        self._report.summary.class_names = network.class_names
        self._report.summary.how["weights_sha256"] = file.sha256
        return network
