"""Measure a network, or a folder of its masks, against ground truth."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from . import backbones, images, sources
from .confusion import Confusion
from .errors import ExitCode, Failure, FailureKind, ImageError, NothingFound, RequestError
from .job import Identity, Job, class_names
from .labelfolders import LabelFolder
from .labelmaps import LabelMap
from .observer import Watcher
from .outputs import read_label_map
from .sources import Source
from .truth import Truth, open_truth
from .wording import counted

PROTOCOLS = {
    "original": "label map and truth compared at the photo's own size",
    "torchvision": "label map and truth compared at the size that the network is fed, the truth resized to "
    "it by the nearest pixel, as torchvision's reference script does",
}

_THREADS = 2
_MAX_PENDING = 64


@dataclass(frozen=True)
class Request:
    """What to measure against what.

    `images` is a folder (or a file, or a pattern), `truth` as for `truth.open_truth`. With `predictions`, a
    folder of label maps, those are measured; else the network that `job` describes.
    """

    images: str
    truth: str
    job: Job
    split: str | None = None
    protocol: str = "original"
    predictions: str | None = None


@dataclass
class Evaluation:
    """What was measured: `total` photos = evaluated (`confusion.images`) + `skipped` + failed.

    Photos are skipped for want of truth; `truth_unused` are label maps of the truth without a photo.
    """

    confusion: Confusion
    class_names: tuple[str, ...]
    protocol: dict[str, Any]
    total: int
    skipped: int
    truth_unused: int
    failures: list[tuple[Source, Failure]] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """What the process should return."""
        return ExitCode.SOME_FAILED if self.failures else ExitCode.OK

    def as_json(self) -> dict[str, Any]:
        """Return the figures by name: fractions from 0 to 1, None for what does not exist."""
        counts = self.confusion
        rows = zip(
            self.class_names,
            counts.iou(),
            counts.accuracy(),
            counts.true_pixels,
            counts.predicted_pixels,
            counts.class_images,
            strict=True,
        )
        classes = {
            str(index): {
                "name": name,
                "iou": _known(iou),
                "accuracy": _known(accuracy),
                "truth_pixels": int(true),
                "predicted_pixels": int(predicted),
                "truth_images": int(shown),
            }
            for index, (name, iou, accuracy, true, predicted, shown) in enumerate(rows)
        }
        return {
            "mean_iou": _known(counts.mean_iou()),
            "pixel_accuracy": _known(counts.pixel_accuracy()),
            "mean_accuracy": _known(counts.mean_accuracy()),
            "images": counts.images,
            "images_given": self.total,
            "images_without_truth": self.skipped,
            "images_failed": len(self.failures),
            "truth_without_image": self.truth_unused,
            "classes_in_mean": sum(one["iou"] is not None for one in classes.values()),
            "classes_absent": [one["name"] for one in classes.values() if one["iou"] is None],
            "pixels": counts.pixels,
            "void_fraction": counts.void_fraction,
            "classes": classes,
            "failures": [
                {"image": source.given, "kind": failure.kind, "message": failure.message}
                for source, failure in self.failures
            ],
            "protocol": self.protocol,
        }


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def evaluate(request: Request, watcher: Watcher) -> Evaluation:
    """Measure.

    Raises
    ------
    RequestError
        The request is wrong.
    NothingFound
        There is no photo, or none that the truth knows.
    """
    job = request.job
    images.prepare_process(job.machinery.max_image_pixels)
    found = sources.discover(
        sources.Request((request.images,), None, None, None, images.photo_suffixes(), keep_extension=True)
    )
    if not found.sources:
        raise NothingFound("; ".join(filter(None, ["no photo was found", found.ignored_text()])))
    truth = open_truth(Path(request.truth), request.split)
    names = _matched(found.sources, truth)
    if not names:
        raise NothingFound(
            f"{counted(len(found.sources), 'photo')} in {request.images}, none with truth in {request.truth}"
        )
    matched = [source for source in found.sources if source.image in names]
    watcher.begin(len(matched))
    if request.predictions is not None:
        answers, classes, how = _from_folder(request, matched)
    else:
        answers, classes, how = _from_network(request, matched, watcher)
    evaluation = Evaluation(
        Confusion.empty(len(classes)),
        classes,
        {
            "name": request.protocol,
            "compared": PROTOCOLS[request.protocol],
            "truth": truth.description,
            "void": "pixels of 255 in the truth count nowhere; 255 in a prediction counts as wrong",
            "mean": "over the classes that the truth or a prediction has",
            **how,
        },
        len(found.sources),
        len(found.sources) - len(matched),
        len(truth) - len(matched),
    )
    with closing(answers):
        _count(answers, truth, names, evaluation, watcher)
    return evaluation


def _matched(photos: list[Source], truth: Truth) -> dict[str, str]:
    """Return image → the truth's name for it; raises RequestError where two photos have one truth."""
    names: dict[str, str] = {}
    owners: dict[str, Source] = {}
    for source in photos:
        name = truth.find(source.image)
        if name is None:
            continue
        if name in owners:
            raise RequestError(
                f"{owners[name].given} and {source.given} have the same truth, {name}; keep one of the photos"
            )
        owners[name] = source
        names[source.image] = name
    return names


@dataclass(frozen=True, slots=True)
class _Answer:
    """What is to be measured for one photo: a label map, or a file that has one, or why there is none."""

    source: Source
    labels: LabelMap | Failure | Path


_Answers = Generator[_Answer | None]


def _from_folder(request: Request, matched: list[Source]) -> tuple[_Answers, tuple[str, ...], dict[str, Any]]:
    if request.protocol != "original":
        raise RequestError(
            f"--protocol {request.protocol} compares at the network's input size, and masks in a folder have "
            "the photos'; use --protocol original, or leave --predictions out"
        )
    folder = LabelFolder(Path(request.predictions or ""))
    asked = class_names(request.job.class_names)
    classes = asked or folder.class_names or backbones.VOC_CLASSES

    def answers() -> _Answers:
        for source in matched:
            yield _Answer(source, folder.find(source.image))

    how = {"predictions": os.fspath(folder.root), "settings": folder.settings}
    return answers(), classes, how


def _from_network(
    request: Request, matched: list[Source], watcher: Watcher
) -> tuple[_Answers, tuple[str, ...], dict[str, Any]]:
    job = request.job
    identity = Identity.of(job)
    file = identity.weights_file(offline=job.offline, progress=watcher.downloading)
    from . import engine, predictions
    from .decoding import open_pool

    how = job.machinery
    pool = open_pool(matched, how, job.resize)
    try:
        chosen = engine.plan(how.device, job.precision, job.kernels, how.batch_size, how.threads)
        network = backbones.load(identity.backbone, file, identity.names)
        ready = engine.Engine(network, chosen)
    except BaseException:
        pool.close()
        raise
    size = predictions.original_size if request.protocol == "original" else predictions.network_size

    def answers() -> _Answers:
        with pool:
            for batch in predictions.predict(pool, matched, ready, size):
                if not batch:
                    yield None
                for one in batch:
                    result = one.result
                    yield _Answer(one.source, result if isinstance(result, Failure) else result.labels)

    settings = {**identity.label.as_json(), "precision": chosen.precision, "kernels": chosen.kernels}
    settings["weights_sha256"] = file.sha256
    return answers(), network.class_names, {"settings": settings}


def _count(
    answers: _Answers, truth: Truth, names: dict[str, str], evaluation: Evaluation, watcher: Watcher
) -> None:
    """Compare answer by answer, in threads: what takes time there is decoding PNGs."""
    classes = len(evaluation.class_names)
    resized = evaluation.protocol["name"] == "torchvision"
    pending: deque[tuple[Source, Future[Confusion]]] = deque()

    def take() -> None:
        source, future = pending.popleft()
        try:
            evaluation.confusion.add(future.result())
            watcher.step(failed=False)
        except ImageError as error:
            evaluation.failures.append((source, error.failure))
            watcher.step(failed=True)

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="fcn-count") as threads:
        for answer in answers:
            if answer is None:
                watcher.waiting()
                continue
            name = names[answer.source.image]
            job = threads.submit(_compare, answer.labels, truth, name, classes, resized=resized)
            pending.append((answer.source, job))
            while len(pending) > _MAX_PENDING or (pending and pending[0][1].done()):
                take()
        while pending:
            take()


def _compare(
    answer: LabelMap | Failure | Path, truth: Truth, name: str, classes: int, *, resized: bool
) -> Confusion:
    if isinstance(answer, Failure):
        raise ImageError(*answer)
    labels = read_label_map(answer) if isinstance(answer, Path) else answer
    right = truth.load(name)
    height, width = labels.shape
    if resized:
        right = np.asarray(Image.fromarray(right).resize((width, height), Image.Resampling.NEAREST))
    elif right.shape != labels.shape:
        raise ImageError(
            FailureKind.SIZES_DIFFER,
            f"its truth {name} has {right.shape[1]}x{right.shape[0]} pixels, its label map {width}x{height}",
        )
    try:
        return Confusion.of(right, labels, classes)
    except ValueError as error:
        raise ImageError(FailureKind.BAD_LABELS, f"{error} ({name})") from None
