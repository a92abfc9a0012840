"""Measure the accuracy of a network, or of a directory of masks, against ground truth."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..common import resources
from ..common.class_names import VOC_CLASSES, load_class_names
from ..common.errors import Failure, NothingFound, RequestError
from ..inputs import decoder, discovery
from ..inputs.discovery import InputRequest, Source
from ..runs.observers import ProgressObserver
from ..runs.request import PredictionRequest
from . import counting, truth_check, wrong_calls
from .choices import Orientation, Protocol
from .confusion_matrix import Confusion
from .counting import Answer, Inspector
from .ground_truth import FolderTruth, Truth, TruthRequest, open_truth
from .label_folder import LabelFolder
from .orientation import OrientationRule
from .result import Evaluation, SeenPhoto

PROTOCOLS = {
    Protocol.ORIGINAL: "label map and truth compared at the photo's own size",
    Protocol.TORCHVISION: "label map and truth compared at the network's input size, the truth resized to it "
    "by nearest neighbour, as in torchvision's reference script",
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


@dataclass(frozen=True)
class _Matched:
    """The photos with truth, in order; `names` maps an image to the truth's name for it."""

    truth: Truth
    photos: list[Source]
    names: dict[str, str]
    rule: OrientationRule


class _Answers(NamedTuple):
    """The answers photo by photo, their class names, and further entries for the protocol."""

    answers: Generator[Answer | None]
    class_names: tuple[str, ...]
    protocol: dict[str, Any]


def evaluate(
    request: EvaluationRequest, observer: ProgressObserver, inspect: Inspector | None = None
) -> Evaluation:
    """Compare predictions with ground truth.

    The first label maps of the truth are checked before weights are searched or downloaded.

    Parameters
    ----------
    request
        What to measure.
    observer
        Receives the progress.
    inspect
        Is given the label maps of each photo, in threads.

    Raises
    ------
    RequestError
        The request or its truth is invalid.
    NothingFound
        There is no photo, or no photo with truth.
    """
    if request.predictions is not None and request.protocol is not Protocol.ORIGINAL:
        raise RequestError(
            f"--protocol {request.protocol} compares at the network's input size, and masks in a directory "
            "have the photos'; use --protocol original, or leave --predictions out"
        )
    decoder.prepare_process(request.prediction.decoding.max_pixels)
    photos, matched = _find(request)
    truth = matched.truth
    observer.begin(len(matched.photos))
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
            "void": "pixels that are 255 in the truth are ignored; 255 in a prediction counts as wrong",
            "mean": "over the classes of the truth or a prediction",
            **found.protocol,
        },
        matched.rule.wanted,
        matched.rule.where_both_fit,
        len(photos),
        len(photos) - len(matched.photos),
        len(truth) - len(matched.photos),
        truth.counts,
    )
    with closing(found.answers):
        counting.count(found.answers, truth, matched.names, evaluation, observer, inspect)
    return evaluation


def _find(request: EvaluationRequest) -> tuple[list[Source], _Matched]:
    """Find the photos, match them with the truth, and check that the truth is usable."""
    wrong_calls.refuse_images(request.images, request.truth.path)
    found = discovery.discover(InputRequest((request.images,)), keep_extension=True)
    if not found.sources:
        raise NothingFound("; ".join(filter(None, ["no photo was found", found.ignored_text()])))
    with wrong_calls.detect_swapped(request.images, request.truth.path):
        truth = open_truth(request.truth)
        names = _names(found.sources, truth)
        if not names:
            raise wrong_calls.unmatched(
                found.sources, truth.names(), truth.expected, request.images, request.truth.path
            )
        known = _known_classes(request)
        if known is not None:
            _check_classes(truth, known)
        if isinstance(truth, FolderTruth):
            truth_check.check(truth, list(names.values()), len(known) if known else None)
    either = Orientation.STORED if request.protocol is Protocol.TORCHVISION else truth.drawn_on
    frames = {image: truth.frame(name) for image, name in names.items()}
    photos = [source for source in found.sources if source.image in names]
    rule = OrientationRule(frames, request.orientation, either)
    return found.sources, _Matched(truth, photos, names, rule)


def _known_classes(request: EvaluationRequest) -> tuple[str, ...] | None:
    """Return the class names if they are known before the weights are loaded, else None."""
    model = request.prediction.model
    asked_names = load_class_names(model.class_names)
    official = request.predictions is None and model.weights_file is None
    return asked_names or (VOC_CLASSES if official else None)


def _names(photos: list[Source], truth: Truth) -> dict[str, str]:
    """Map each image to the truth's name for it; raises RequestError if two photos share one truth."""
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


def _check_classes(truth: Truth, names: tuple[str, ...]) -> None:
    if truth.voc_classes_only and names[1:] != VOC_CLASSES[1:]:
        raise RequestError(
            f"the truth has Pascal VOC's classes, the predictions have others ({', '.join(names[:3])}, …); "
            "if they are Pascal VOC's under other names, give --class-names voc"
        )


def _from_folder(request: EvaluationRequest, matched: _Matched) -> _Answers:
    from ..runs.prediction_stream import open_pool

    folder = LabelFolder(Path(request.predictions or ""))
    if not any(folder.has(source.image) for source in matched.photos):
        raise wrong_calls.unmatched(
            matched.photos, folder.file_names(), folder.expected, request.images, os.fspath(folder.root)
        )
    classes = load_class_names(request.prediction.model.class_names) or folder.class_names or VOC_CLASSES
    _check_classes(matched.truth, classes)
    # The photos are opened for their sizes and EXIF orientations: our masks are always upright.
    pool = open_pool(matched.photos, request.prediction.decoding, orient=matched.rule, measure_only=True)

    def answers() -> Generator[Answer | None]:
        with pool:
            for item in pool:
                if item is None:
                    yield None
                    continue
                labels = item.failure or folder.find(item.source.image)
                yield Answer(item.source, SeenPhoto.of(item, None), labels, upright=folder.is_ours)

    return _Answers(answers(), classes, {"predictions": os.fspath(folder.root), "settings": folder.settings})


@resources.objects_that_stay()
def _from_network(request: EvaluationRequest, matched: _Matched, observer: ProgressObserver) -> _Answers:
    from ..inference import engine, execution
    from ..runs import prediction_stream
    from ..runs.prediction_stream import open_pool

    prediction = request.prediction
    pool = open_pool(matched.photos, prediction.decoding, orient=matched.rule)
    try:
        # A device that is not there is a reason not to look for weights, which may take a download.
        chosen = execution.resolve_execution(prediction.inference)
        model = prediction.model.resolve()
        file = model.weights_file(observer.downloading)
        network = model.load(file)
        _check_classes(matched.truth, network.class_names)
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
    if short_side is not None:
        short_side = int(short_side * max(prediction.decoding.scales))

    def answers() -> Generator[Answer | None]:
        with pool:
            for batch in prediction_stream.predict(pool, ready, size):
                if not batch:
                    yield None
                for predicted in batch:
                    photo, result = predicted.photo, predicted.result
                    labels = result if isinstance(result, Failure) else result.labels
                    yield Answer(photo.source, SeenPhoto.of(photo, short_side), labels)

    settings = {
        **prediction.label_settings(model).as_json(),
        "class_names": model.asked_names,
        "precision": chosen.precision,
        "kernels": chosen.kernels,
    }
    settings["weights_sha256"] = file.sha256
    return _Answers(answers(), network.class_names, {"settings": settings})
