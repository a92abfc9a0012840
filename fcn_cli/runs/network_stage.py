"""The loop of a run: photos through the decoding workers and the network to the writers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..common import palettes
from ..common.errors import DeviceLost, Failure, OutputLost
from ..common.label_map import Segmentation
from ..common.output_layout import find_kind, output_file
from ..common.signals import Stop
from ..common.wording import counted
from ..models import loading
from ..models.weights import WeightsFile
from ..outputs import record
from ..outputs.directory import OutputFolder
from ..outputs.write_queue import WriteQueue
from .observers import RunObserver
from .request import ResolvedRequest, SegmentRequest
from .resume_plan import ResumePlan, Step
from .run_report import RunReport

if TYPE_CHECKING:
    # torch comes with these: a run with nothing to do never imports them.
    from ..inference.engine import Engine
    from ..inference.execution import ExecutionConfig as Execution
    from .prediction_stream import Prediction


class NetworkStage:
    """Runs the network over the photos that take it.

    Parameters
    ----------
    job, identity
        What is asked for.
    folder
        The output directory.
    report, observer
        Are told what happens.
    stop
        Whether a signal asked the run to end.
    """

    def __init__(
        self,
        job: SegmentRequest,
        identity: ResolvedRequest,
        folder: OutputFolder,
        report: RunReport,
        observer: RunObserver,
        stop: Stop,
    ) -> None:
        self._job = job
        self._identity = identity
        self._folder = folder
        self._report = report
        self._observer = observer
        self._stop = stop
        self._fingerprint = identity.label.fingerprint()
        self._kernels = ""

    def run(self, steps: Sequence[Step], plan: ResumePlan, writes: WriteQueue) -> None:
        """Segment the photos of some steps of a plan, in this order."""
        execution = self._execution() if self._job.machinery.device not in {"auto", "cpu"} else None
        # Weights that cannot be had end the run before torch is imported.
        file = self._identity.weights_file(offline=self._job.offline, progress=self._observer.downloading)
        from .prediction_stream import open_pool, predict

        sources = [step.source for step in steps if step.source is not None]
        to_complete = {step.image: step for step in steps if step.kinds}
        # The workers start before the network is loaded, so before CUDA and torch's threads.
        with open_pool(sources, self._job.machinery, self._job.resize) as pool:
            engine = self._engine(file, execution or self._execution(), plan, pool.workers)
            summary = self._report.summary
            started, done_before = time.monotonic(), summary.done
            with self._stop:
                try:
                    for batch in predict(pool, sources, engine):
                        self._take(batch, engine, to_complete, writes)
                        writes.commit()
                        if self._stop.signum is not None or self._report.first_failure is not None:
                            break
                except DeviceLost as error:
                    # What came before is whole, and is kept.
                    summary.stopped = error
                writes.commit(everything=True)
            summary.seconds = time.monotonic() - started
            summary.segmented = summary.done - done_before

    def _take(
        self,
        batch: Sequence[Prediction],
        engine: Engine,
        to_complete: Mapping[str, Step],
        writes: WriteQueue,
    ) -> None:
        """Hand what was predicted to the writers."""
        if not batch:
            self._observer.waiting()
            return
        self._describe_kernels(batch, engine)
        kinds = {one.source.image: self._kinds(one, to_complete) for one in batch}
        writes.withdraw(
            (one.source, kinds[one.source.image]) for one in batch if not isinstance(one.result, Failure)
        )
        for one in batch:
            step, item = to_complete.get(one.source.image), one.item
            if isinstance(one.result, Failure):
                failed = record.failed(
                    one.source, self._fingerprint, one.result, item.size_bytes, item.mtime_ns
                )
                writes.add_failed(failed, keep_on_failure=step is not None)
                continue
            completed = self._completed(one, to_complete)
            if completed is None:
                begun = self._begun(one, one.result, engine.plan)
                writes.add(one.source, begun, one.result, kinds[one.source.image])
            else:
                # What is withdrawn is not in the completed record; the other files stay.
                names = {output_file(one.source.output, kind) for kind in completed.kinds}
                assert completed.record is not None  # noqa: S101 - it completes a record
                rest = completed.record.without(names)
                writes.add(one.source, rest, one.result, completed.kinds, keep_on_failure=True)

    def _completed(self, prediction: Prediction, to_complete: Mapping[str, Step]) -> Step | None:
        """Return the step of a photo that only lacks kinds, if it still is the photo of its other files."""
        step = to_complete.get(prediction.source.image)
        same = step is not None and step.record is not None
        if same and step.record.size == (prediction.item.width, prediction.item.height):  # type: ignore[union-attr]
            return step
        return None

    def _kinds(self, prediction: Prediction, to_complete: Mapping[str, Step]) -> Sequence[str]:
        step = self._completed(prediction, to_complete)
        return step.kinds if step is not None else self._job.kinds

    def _begun(self, prediction: Prediction, result: Segmentation, execution: Execution) -> record.Record:
        return record.begun(
            prediction.source,
            self._fingerprint,
            prediction.item.size_bytes,
            prediction.item.mtime_ns,
            device=str(execution.device),
            precision=result.precision or execution.precision,
            seconds=prediction.item.seconds + prediction.seconds,
            notes=prediction.item.notes,
        )

    def _describe_kernels(self, batch: Sequence[Prediction], engine: Engine) -> None:
        """Say which kernels computed an image, when it is not what was said last."""
        kernels = ", ".join(f"{count} {name}" for name, count in engine.kernels().items())
        pixels = batch[0].item.pixels
        if kernels and kernels != self._kernels and pixels is not None:
            self._observer.detail(f"layers of {pixels.shape[1]}x{pixels.shape[0]}: {kernels}")
            self._kernels = kernels

    def _execution(self) -> Execution:
        """Decide on device, precision and kernels; refuses what this machine does not have."""
        from ..inference import execution

        how = self._job.machinery
        return execution.resolve_execution(
            how.device, self._job.precision, self._job.kernels, how.batch_size, how.threads
        )

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
        confidence = any(not find_kind(kind).from_labels for kind in self._job.kinds)
        return engine.Engine(network, chosen, PredictionOptions(confidence, self._job.min_confidence))

    def _warn_of_other_execution(self, chosen: Execution, plan: ResumePlan) -> None:
        """Say so when ``auto`` becomes something else than for the photos that are done."""
        other: dict[str, int] = {}
        for step in plan.steps:
            if step.record is not None and step.record.ok and step.record.device is not None:
                device = step.record.device.partition(":")[0]
                if (device, step.record.precision) != (chosen.device.type, chosen.precision):
                    how = f"{device} in {step.record.precision}"
                    other[how] = other.get(how, 0) + 1
        if other:
            there = ", ".join(f"{count} on {how}" for how, count in sorted(other.items()))
            self._observer.warn(
                f"this run computes on {chosen.device.type} in {chosen.precision}; of the masks that are "
                f"there: {there}. They can differ in single pixels; --device and --precision settle it"
            )

    def _network(self, file: WeightsFile) -> loading.LoadedModel:
        """Load the network; then, with all of the request known to be right, write what describes the run."""
        identity = self._identity
        if identity.backbone.note and identity.checkpoint is None:
            self._observer.note(identity.backbone.note)
        network = loading.load(identity.backbone, file, identity.names)
        palettes.load(self._job.palette, len(network.class_names))
        with OutputLost.when_refused(self._folder.root):
            identity.settings.save(Path(self._folder.root), file.sha256)
            self._folder.write_classes(network.class_names)
        self._report.summary.class_names = network.class_names
        self._report.summary.how["weights_sha256"] = file.sha256
        return network
