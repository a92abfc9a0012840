"""One image to one PNG in memory, byte for byte as a run into a directory writes it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..common import resources
from ..common.errors import Failure, ImageError
from ..common.output_layout import find_output_type
from ..inputs import decoder, workers
from ..inputs.discovery import Source
from ..outputs.looks import LookRequest
from ..outputs.writers import WRITERS, Original, encode
from .observers import RunObserver
from .request import PredictionRequest

if TYPE_CHECKING:
    # It brings torch, which is imported only once the request is known to be right.
    from ..models.request import ResolvedModel
    from .prediction_stream import Prediction


@dataclass(frozen=True)
class OneImageRequest:
    """An image, the output type to make of it, and how."""

    source: Source
    output_type: str
    look: LookRequest
    prediction: PredictionRequest


@resources.objects_that_stay()
def segment_one(request: OneImageRequest, observer: RunObserver) -> bytes:
    """Segment one image and return its output as PNG: a mask is byte for byte that of a run into a directory.

    Raises
    ------
    ImageError
        The image cannot be segmented.
    RequestError, WeightsError
        The request is wrong, or the weights cannot be had or do not fit.
    DeviceLost
        The device fails.
    """
    prediction = request.prediction
    decoder.prepare_process(prediction.decoding.max_pixels)
    if find_output_type(request.output_type).shows_image:
        workers.start(1)
    model = prediction.model.resolve()
    rules = prediction.rules.resolve(model.class_names)
    names = rules.names(model.class_names) if model.class_names else None
    look = request.look.resolve(names, background_class=rules.background(model.background))
    predicted = _prediction(request, model, observer)
    if isinstance(predicted.result, Failure):
        raise ImageError.of(predicted.result)
    stream = io.BytesIO()
    encode(
        WRITERS[request.output_type](look),
        rules(predicted.result),
        Original(request.source.path, prediction.decoding),
        stream,
        as_png=True,
    )
    return stream.getvalue()


def _prediction(request: OneImageRequest, model: ResolvedModel, observer: RunObserver) -> Prediction:
    from ..inference import engine, execution
    from .prediction_stream import open_pool, predictions

    prediction = request.prediction
    # The worker starts before the network is loaded, so before CUDA and torch's threads.
    with open_pool([request.source], prediction.decoding) as pool:
        # A device that is not there is a reason not to look for weights, which may take a download.
        chosen = execution.resolve_execution(prediction.inference)
        if note := execution.note(chosen):
            observer.note(note)
        network = model.load(model.weights_file(observer.downloading))
        for note in model.notes(network):
            observer.note(note)
        request.look.check(prediction.rules.resolve(network.class_names).names(network.class_names))
        options = prediction.wanted([request.output_type], network.class_names)
        ready = engine.Engine(network, chosen, options, prediction.inference.views)
        observer.detail(f"{network.backbone.name} on {chosen.device}, {chosen.precision}")
        for batch in predictions(pool, ready):
            if batch:
                return batch[0]
            observer.waiting()
    raise AssertionError("a pool yields every image")
