"""One segmentation run: find, plan, loop, record, sum up."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from . import __version__, backbones, images, palettes, plan, settings, sources, stats, weights
from .errors import Failure, NothingFound, OutputLost, StoppedEarly
from .interrupts import Stop
from .job import Identity, Job
from .journal import Journal, Record
from .labelmaps import Predicted
from .lock import OutputLock
from .observer import Observer
from .outputs import OutputFolder, read_classes
from .palettes import VOID_INDEX
from .sources import Found, Source
from .summary import Summary
from .writing import WriteQueue, failed

if TYPE_CHECKING:
    # torch comes with these: a run with nothing to do never imports them.
    from .engine import Engine
    from .predictions import Prediction


def segment(job: Job, observer: Observer) -> Summary:
    """Segment photos into an output directory.

    What ends a run early once it has begun is in the summary (`Summary.stopped`), with what was done.

    Raises
    ------
    NothingFound
        The inputs hold no photo.
    RequestError
        The request is wrong; nothing was written.
    OutputLocked, OutputLost
        The output directory is another run's, or cannot be written.
    """
    images.prepare_process(job.machinery.max_image_pixels)
    found = _find(job)
    identity = Identity.of(job)
    if job.dry_run:
        return _Run(job, observer, found, identity).dry()
    with OutputLock(Path(job.output), job.wait, observer.note) as lock:
        if lock.waited:
            # Photos may have come or changed in the meantime.
            found = _find(job)
        return _Run(job, observer, found, identity).execute()


def _find(job: Job) -> Found:
    request = sources.Request(
        job.inputs,
        job.listed,
        job.root,
        job.output,
        images.photo_suffixes(),
        job.keep_extension,
        job.include,
        job.exclude,
    )
    found = sources.discover(request)
    if not found.sources:
        raise NothingFound("; ".join(filter(None, ["nothing to segment was found", found.ignored_text()])))
    return found


class _Run:
    """The state of one run, from the plan to the summary."""

    def __init__(self, job: Job, observer: Observer, found: Found, identity: Identity) -> None:
        self.job = job
        self.observer = observer
        self.found = found
        self.identity = identity
        self.output = Path(job.output)
        self.folder = OutputFolder(self.output, identity.palette)
        self.fingerprint = identity.label.fingerprint()
        self.summary = Summary(
            self.output, palette=identity.palette, total=len(found.sources), ignored=found.ignored_text()
        )
        self.stop = Stop()
        self._first_failure: StoppedEarly | None = None
        self._kernels = ""

    def dry(self) -> Summary:
        """Plan and report; write nothing."""
        made = self._plan(self._journal())
        self.observer.planned(made)
        self.summary.skipped = len(made.done)
        self.summary.failed = len(made.still_failed)
        return self.summary

    def execute(self) -> Summary:
        """Do what the plan says."""
        with OutputLost.when_refused(self.output):
            journal = self._journal()
            journal.mend()
        made = self._plan(journal)
        self.observer.planned(made)
        for record in made.done:
            self._count(record, skipped=True)
        for record in made.still_failed:
            self._count(record, skipped=True)
        try:
            if made.work:
                self._work(made, journal)
        except OutputLost as error:
            self.summary.stopped = error
        finally:
            journal.close()
        if self.summary.stopped is None and self.summary.left:
            self.summary.stopped = self.stop.error or self._first_failure
        self._project(journal, changed=bool(made.work))
        return self.summary

    def _journal(self) -> Journal:
        """Return the journal of an output directory that was written with this run's settings."""
        if not self.job.overwrite:
            settings.check(self.output, self.identity.label, self.identity.files)
        return Journal(self.output)

    def _plan(self, journal: Journal) -> plan.Plan:
        wanted = plan.Wanted(self.job.kinds, self.fingerprint, self.job.overwrite, self.job.retry_failed)
        return plan.make(self.found.sources, journal, self.folder, wanted)

    def _work(self, made: plan.Plan, journal: Journal) -> None:
        with WriteQueue(self.folder, journal, self._finished, self.job.machinery.max_image_pixels) as writes:
            with self.stop:
                unusable = self._add_kinds(made.to_add, writes)
                writes.commit(everything=True)
            repeated = [addition.source for addition in made.to_repeat.values()]
            to_segment = sorted(made.to_segment + unusable + repeated, key=lambda source: source.image)
            if to_segment and not self._ended():
                self._segment(to_segment, made.to_repeat, writes)

    def _add_kinds(self, additions: Sequence[plan.FromLabels], writes: WriteQueue) -> list[Source]:
        """Write missing kinds from label maps on disk; return the photos whose maps are not usable."""
        unusable = []
        for addition in additions:
            if self._ended():
                break
            record = addition.record
            labels = self.folder.read_labels(addition.label_file, record.width or 0, record.height or 0)
            if labels is None:
                unusable.append(addition.source)
                continue
            writes.add(addition.source, record, Predicted(labels), addition.kinds, keep_on_failure=True)
            writes.commit()
        return unusable

    def _segment(
        self, to_segment: Sequence[Source], to_repeat: Mapping[str, plan.Addition], writes: WriteQueue
    ) -> None:
        # Weights that cannot be had end the run before torch is imported.
        file = self.identity.weights_file(offline=self.job.offline, progress=self.observer.downloading)
        from .decoding import open_pool
        from .predictions import predict

        how = self.job.machinery
        # The workers start before the network is loaded, so before CUDA and torch's threads.
        with open_pool(to_segment, how, self.job.resize) as pool:
            engine = self._engine(file, pool.workers)
            started, done_before = time.monotonic(), self.summary.done
            with self.stop:
                for batch in predict(pool, to_segment, engine):
                    self._take(batch, to_repeat, writes)
                    self._describe_kernels(batch, engine)
                    writes.commit()
                    if self._ended():
                        break
                writes.commit(everything=True)
            self.summary.seconds = time.monotonic() - started
            self.summary.segmented = self.summary.done - done_before

    def _take(
        self, batch: Sequence[Prediction], to_repeat: Mapping[str, plan.Addition], writes: WriteQueue
    ) -> None:
        """Hand what was predicted to the writers."""
        if not batch:
            self.observer.waiting()
        for one in batch:
            addition = to_repeat.get(one.source.image)
            if isinstance(one.result, Failure):
                item = one.item
                record = failed(one.source, self.fingerprint, one.result, item.size_bytes, item.mtime_ns)
                writes.add_failed(record, keep_on_failure=addition is not None)
            elif addition is not None and addition.record.size == (one.item.width, one.item.height):
                writes.add(one.source, addition.record, one.result, addition.kinds, keep_on_failure=True)
            else:
                writes.add(one.source, self._record(one), one.result, self.job.kinds)

    def _describe_kernels(self, batch: Sequence[Prediction], engine: Engine) -> None:
        """Say which kernels computed an image, when it is not what was said last."""
        kernels = ", ".join(f"{count} {name}" for name, count in engine.kernels().items())
        pixels = batch[0].item.pixels if batch else None
        if kernels and kernels != self._kernels and pixels is not None:
            self.observer.detail(f"layers of {pixels.shape[1]}x{pixels.shape[0]}: {kernels}")
            self._kernels = kernels

    def _record(self, one: Prediction) -> Record:
        return Record(
            image=one.source.image,
            source=one.source.given,
            status="ok",
            fingerprint=self.fingerprint,
            size_bytes=one.item.size_bytes,
            mtime_ns=one.item.mtime_ns,
            seconds=one.item.seconds + one.seconds,
            notes=one.item.notes,
        )

    def _engine(self, file: weights.WeightsFile, workers: int) -> Engine:
        from . import engine
        from .upsample import Asked

        how = self.job.machinery
        chosen = engine.plan(how.device, self.job.precision, self.job.kernels, how.batch_size, how.threads)
        network = self._network(file)
        self.observer.detail(
            f"{network.backbone.name} on {chosen.device}, {chosen.precision}, {chosen.kernels} kernels, "
            f"{chosen.threads} threads, "
            f"batches of up to {chosen.batch_size}, {workers} decoding workers"
        )
        self.summary.how.update(
            device=str(chosen.device),
            precision=chosen.precision,
            kernels=chosen.kernels,
            threads=chosen.threads,
            batch_size=chosen.batch_size,
            workers=workers,
        )
        asked = Asked("confidence" in self.job.kinds, self.job.min_confidence)
        return engine.Engine(network, chosen, asked)

    def _network(self, file: weights.WeightsFile) -> backbones.Network:
        """Load the network; then, with all of the request known to be right, write what describes the run."""
        identity = self.identity
        if identity.backbone.note and identity.checkpoint is None:
            self.observer.note(identity.backbone.note)
        network = backbones.load(identity.backbone, file, identity.names)
        palettes.load(self.job.palette, len(network.class_names))
        with OutputLost.when_refused(self.output):
            settings.save(self.output, identity.label, identity.files, file.sha256)
            self.folder.write_classes(network.class_names)
        self.summary.class_names = network.class_names
        self.summary.how["weights_sha256"] = file.sha256
        return network

    def _ended(self) -> bool:
        return self.stop.signum is not None or self._first_failure is not None

    def _finished(self, record: Record) -> None:
        self._count(record, skipped=False)
        if not record.ok and self.job.fail_fast and self._first_failure is None:
            self._first_failure = StoppedEarly(
                f"--fail-fast: stopped at the first failed image, {record.source}"
            )

    def _count(self, record: Record, *, skipped: bool) -> None:
        if not record.ok:
            self.summary.failed += 1
            self.summary.failures.append(record)
        elif skipped:
            self.summary.skipped += 1
        else:
            self.summary.done += 1
        self.summary.totals.add(record)
        self.observer.finished(record, skipped=skipped)

    def _project(self, journal: Journal, *, changed: bool) -> None:
        """Bring stats.csv and summary.json up to date with the journal, unless they are."""
        names = self.summary.class_names or read_classes(self.output) or self.identity.names
        names = self.summary.class_names = names or [f"class_{index}" for index in range(VOID_INDEX)]
        if not changed and stats.up_to_date(self.output, journal):
            return
        self.summary.how.update(kinds=list(self.job.kinds), versions=_versions())
        try:
            with OutputLost.when_refused(self.output):
                stats.write(self.output, journal, self.fingerprint, names, self.summary.as_json())
        except OutputLost as error:
            self.summary.stopped = self.summary.stopped or error


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("torch", "torchvision", "pillow")}
    if "torch" in sys.modules:
        # Says the build as well, as in 2.10.0+cu128.
        packages["torch"] = sys.modules["torch"].__version__
    return {"fcn": __version__, "python": platform.python_version(), **packages}
