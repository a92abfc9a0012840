"""Measure the accuracy of a network, or of a directory of masks, against ground truth."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from PIL import Image

from ..common import resources
from ..common.class_names import VOC_CLASSES, load_class_names
from ..common.errors import Failure, FailureKind, ImageError, NothingFound, RequestError
from ..common.label_map import LabelMap, read_label_map
from ..common.ordered_work import OrderedWork, Task
from ..inputs import decoder, discovery, exif
from ..inputs.discovery import InputRequest, Source
from ..runs.observers import ProgressObserver
from ..runs.request import PredictionRequest
from . import Orientation, Protocol, matching
from .confusion import Confusion
from .ground_truth import FolderTruth, Truth, TruthRequest, open_truth
from .label_folder import LabelFolder
from .matching import OrientationRule
from .result import Evaluation, SeenImage

_THREADS = 2
MAX_HELD_BYTES = 256 << 20
"""How many bytes of label maps may wait for their truth."""

PROTOCOLS = {
    Protocol.ORIGINAL: "compared at the image's own size",
    Protocol.TORCHVISION: (
        "compared at the network's input size, the ground truth resized to it by "
        "nearest neighbour, as in torchvision's reference script"
    ),
}


@dataclass(frozen=True)
class EvaluationRequest:
    """What to measure against what.

    `images` is a directory (or a file, or a pattern). With `predictions`, a directory of label maps, those
    are measured; else the network that `prediction` describes.
    """

    images: str
    truth: TruthRequest
    prediction: PredictionRequest
    protocol: Protocol = Protocol.ORIGINAL
    predictions: str | None = None
    orientation: Orientation = Orientation.AUTO


@dataclass(frozen=True, slots=True)
class _Answer:
    """What is to be measured for one image: a label map, or a file that has one, or why there is none.

    Without `upright`, a label map from a file is taken the way that fits the image's size; with it, it is
    one of the upright image.
    """

    source: Source
    seen: SeenImage
    labels: LabelMap | Failure | Path
    upright: bool = False

    @property
    def held_bytes(self) -> int:
        return self.labels.nbytes if isinstance(self.labels, np.ndarray) else 0


class Compared(NamedTuple):
    """One image's truth and prediction (uint8, of one shape (h, w)), and their confusion matrix."""

    source: Source
    seen: SeenImage
    truth: LabelMap
    predicted: LabelMap
    confusion: Confusion


Inspector: TypeAlias = Callable[[Compared], None]
"""Is given every image that was measured, in the threads that compare; it must not keep the label maps."""


@dataclass(frozen=True)
class _Matched:
    """The images with truth, in order; `names` maps an image to the truth's name for it."""

    truth: Truth
    sources: list[Source]
    names: dict[str, str]
    rule: OrientationRule


class _Answers(NamedTuple):
    """The answers image by image, their class names, and further entries for the protocol."""

    answers: Generator[_Answer | None]
    class_names: tuple[str, ...]
    protocol: dict[str, Any]


def evaluate(
    request: EvaluationRequest, observer: ProgressObserver, inspect: Inspector | None = None
) -> Evaluation:
    """Compare predictions with ground truth; `inspect` is given the label maps of each image, in threads.

    The first label maps of the truth are checked before weights are searched or downloaded.

    Raises
    ------
    RequestError
        The request or its truth is invalid.
    NothingFound
        There is no image, or no image with truth.
    """
    if request.predictions is not None and request.protocol is not Protocol.ORIGINAL:
        raise RequestError(
            f"--protocol {request.protocol} compares at the network's input size, but --predictions "
            "have the images' size; use --protocol original, or leave --predictions out"
        )
    decoder.prepare_process(request.prediction.decoding.max_pixels)
    images, matched = _find(request)
    truth = matched.truth
    observer.begin(len(matched.sources))
    if request.predictions is not None:
        found = _from_folder(request, matched)
    else:
        found = _from_network(request, matched, observer)
    evaluation = Evaluation(
        Confusion.empty(len(found.class_names)),
        found.class_names,
        {
            "name": request.protocol,
            "compared": PROTOCOLS[request.protocol],
            "truth": truth.description,
            "void": (
                "pixels that are 255 in the ground truth are ignored; 255 in a prediction counts as wrong"
            ),
            "mean": "over the classes of the ground truth or a prediction",
            **found.protocol,
        },
        matched.rule.wanted,
        matched.rule.where_both_fit,
        len(images),
        len(images) - len(matched.sources),
        len(truth) - len(matched.sources),
        truth.counts,
    )
    with closing(found.answers):
        _count(found.answers, truth, matched.names, evaluation, observer, inspect)
    return evaluation


def _find(request: EvaluationRequest) -> tuple[list[Source], _Matched]:
    """Find the images, match them with the truth, and check that the truth is usable."""
    matching.refuse_images(request.images, request.truth.path)
    found = discovery.discover(InputRequest((request.images,)), keep_extension=True)
    if not found.sources:
        raise NothingFound("; ".join(filter(None, ["no images found", found.ignored_text()])))
    with matching.detect_swapped(request.images, request.truth.path):
        truth = open_truth(request.truth)
        # With a suffix, label maps may lie beside the images.
        sources = [
            source
            for source in found.sources
            if not (request.truth.suffix and isinstance(truth, FolderTruth) and truth.holds(source.path))
        ]
        pairs = matching.pair(sources, truth)
        if not pairs.names:
            raise matching.unmatched(
                sources or found.sources,
                truth.names(),
                truth.expected,
                request.images,
                request.truth.path,
                "--truth-suffix",
            )
        known = _known_classes(request)
        if known is not None:
            truth.use_classes(known)
        if isinstance(truth, FolderTruth):
            truth.check_first(list(pairs.names.values()), known)
    either = Orientation.STORED if request.protocol is Protocol.TORCHVISION else truth.drawn_on
    frames = {image: pairs.failures.get(image, truth.frame(name)) for image, name in pairs.names.items()}
    matched = [source for source in sources if source.image in pairs.names]
    rule = OrientationRule(frames, request.orientation, either)
    return sources, _Matched(truth, matched, pairs.names, rule)


def _known_classes(request: EvaluationRequest) -> tuple[str, ...] | None:
    """Return the class names if they are known before the weights are loaded, else None."""
    model = request.prediction.model
    asked_names = load_class_names(model.class_names)
    official = request.predictions is None and model.weights_file is None
    return asked_names or (VOC_CLASSES if official else None)


def _from_folder(request: EvaluationRequest, matched: _Matched) -> _Answers:
    from ..runs.prediction_stream import open_pool

    folder = LabelFolder(Path(request.predictions or ""))
    if not any(folder.has(source.image) for source in matched.sources):
        raise matching.unmatched(
            matched.sources, folder.file_names(), folder.expected, request.images, os.fspath(folder.root)
        )
    classes = load_class_names(request.prediction.model.class_names) or folder.class_names or VOC_CLASSES
    matched.truth.use_classes(classes, folder.background)
    # The images are opened for their sizes and EXIF orientations: our masks are always upright.
    pool = open_pool(matched.sources, request.prediction.decoding, orient=matched.rule, measure_only=True)

    def answers() -> Generator[_Answer | None]:
        with pool:
            for item in pool:
                if item is None:
                    yield None
                    continue
                labels = item.failure or folder.find(item.source.image)
                yield _Answer(item.source, SeenImage.of(item, None), labels, upright=folder.is_ours)

    return _Answers(answers(), classes, {"predictions": os.fspath(folder.root), "settings": folder.settings})


@resources.objects_that_stay()
def _from_network(request: EvaluationRequest, matched: _Matched, observer: ProgressObserver) -> _Answers:
    from ..inference import engine, execution
    from ..runs import prediction_stream
    from ..runs.prediction_stream import open_pool

    prediction = request.prediction
    pool = open_pool(matched.sources, prediction.decoding, orient=matched.rule)
    try:
        # A device that is not there is a reason not to look for weights, which may take a download.
        chosen = execution.resolve_execution(prediction.inference)
        model = prediction.model.resolve()
        file = model.weights_file(observer.downloading)
        network = model.load(file)
        for note in filter(None, [execution.note(chosen), *model.notes(network)]):
            observer.note(note)
        matched.truth.use_classes(network.class_names, network.background)
        ready = engine.Engine(network, chosen, views=prediction.inference.views)
    except BaseException:
        pool.close()
        raise
    size = (
        prediction_stream.original_size
        if request.protocol is Protocol.ORIGINAL
        else prediction_stream.network_size
    )

    short_side = prediction.decoding.short_side
    if isinstance(short_side, int):
        short_side = int(short_side * max(prediction.decoding.scales))

    def answers() -> Generator[_Answer | None]:
        with pool:
            for batch in prediction_stream.predictions(pool, ready, size):
                if not batch:
                    yield None
                for predicted in batch:
                    image, result = predicted.image, predicted.result
                    labels = result if isinstance(result, Failure) else result.labels
                    yield _Answer(image.source, SeenImage.of(image, short_side), labels)

    settings = {
        **prediction.label_settings(model).as_json(),
        "class_names": model.asked_names,
        "precision": chosen.precision,
        "kernels": chosen.kernels,
    }
    settings["weights_sha256"] = file.sha256
    if recorded := model.recorded(network):
        settings["checkpoint"] = recorded
    return _Answers(answers(), network.class_names, {"settings": settings})


def _count(
    answers: Generator[_Answer | None],
    truth: Truth,
    names: dict[str, str],
    evaluation: Evaluation,
    observer: ProgressObserver,
    inspect: Inspector | None = None,
) -> None:
    """Add answer by answer to an evaluation; None stands for a moment in which nothing came."""
    classes = len(evaluation.class_names)
    resized = evaluation.protocol["name"] == Protocol.TORCHVISION

    def add(task: Task[tuple[Source, SeenImage], Confusion]) -> None:
        source, image = task.key
        try:
            evaluation.confusion.add(task.future.result())
            evaluation.notes.add(source, image)
            observer.step(failed=False)
        except ImageError as error:
            evaluation.failures.append((source, error.failure))
            observer.step(failed=True)

    # Most of this time goes into decoding PNGs.
    with OrderedWork[tuple[Source, SeenImage], Confusion](
        _THREADS, "fcn-count", max_bytes=MAX_HELD_BYTES
    ) as work:
        for answer in answers:
            if answer is None:
                observer.waiting()
                continue
            name = names[answer.source.image]
            if notes := truth.notes(name):
                answer = replace(answer, seen=replace(answer.seen, notes=(*answer.seen.notes, *notes)))
            work.submit(
                (answer.source, answer.seen),
                partial(_compare, answer, truth, name, classes, inspect, resized=resized),
                answer.held_bytes,
            )
            for task in work.take():
                add(task)
        for task in work.take(everything=True):
            add(task)


def _compare(
    answer: _Answer, truth: Truth, name: str, classes: int, inspect: Inspector | None, *, resized: bool
) -> Confusion:
    if isinstance(answer.labels, Failure):
        raise ImageError.of(answer.labels)
    labels = _from_file(answer, answer.labels) if isinstance(answer.labels, Path) else answer.labels
    right = truth.load(name, answer.seen.size)
    if resized:
        size = labels.shape[1], labels.shape[0]
        right = np.asarray(Image.fromarray(right).resize(size, Image.Resampling.NEAREST))
    try:
        confusion = Confusion.of(right, labels, classes)
    except ValueError as error:
        raise ImageError(FailureKind.BAD_LABELS, f"{error} ({name})") from None
    if inspect is not None:
        inspect(Compared(answer.source, answer.seen, right, labels, confusion))
    return confusion


def _from_file(answer: _Answer, path: Path) -> LabelMap:
    """Return the label map of a file, turned to the way in which the image's truth was drawn."""
    image = answer.seen
    labels = read_label_map(path, image.size, image.other_size)
    as_it_is = (labels.shape[1], labels.shape[0]) == image.size
    what = f"its mask {path}"
    if image.stored and (answer.upright or not as_it_is):
        _check_size(labels, image.other_size, what)
        return np.asarray(exif.as_stored(Image.fromarray(labels), image.turn))
    if image.turn != 1 and not as_it_is and not answer.upright:
        _check_size(labels, image.other_size, what)
        return np.asarray(exif.upright(Image.fromarray(labels), image.turn))
    _check_size(labels, image.size, what)
    return labels


def _check_size(labels: LabelMap, image: tuple[int, int], what: str) -> None:
    height, width = labels.shape
    if (width, height) != image:
        raise ImageError(
            FailureKind.SIZES_DIFFER,
            f"{what} has {width}x{height} pixels, the image {image[0]}x{image[1]}",
        )
