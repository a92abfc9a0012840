"""``fcn evaluate`` and ``fcn compare``: masks against ground truth, or against other masks."""

from __future__ import annotations

import contextlib
from pathlib import Path

import typer

from ..common.limits import MOST_MASK_PIXELS
from ..evaluation import Orientation, Protocol
from ..models.registry import DEFAULT_BACKBONE
from . import options, values
from .console import print_figures, print_message


def evaluate(
    context: typer.Context,
    images: options.Images,
    truth: options.Truth,
    predictions: options.Predictions = None,
    split: options.Split = None,
    truth_suffix: options.TruthSuffix = "",
    truth_colors: options.TruthColorsOption = None,
    truth_map: options.TruthMap = None,
    ignore_index: options.IgnoreIndex = None,
    labelmap: options.LabelMapFile = None,
    protocol: options.ProtocolOption = Protocol.ORIGINAL,
    orientation: options.OrientationOption = Orientation.AUTO,
    backbone: options.BackboneOption = DEFAULT_BACKBONE,
    weights: options.Weights = None,
    class_names: options.ClassNames = None,
    network_card: options.NetworkCard = None,
    offline: options.Offline = False,
    device: options.Device = "auto",
    threads: options.Threads = "auto",
    kernels: options.KernelsOption = options.Kernels.AUTO,
    precision: options.PrecisionOption = options.Precision.AUTO,
    batch_size: options.BatchSize = "auto",
    workers: options.Workers = "auto",
    resize: options.Resize = "520",
    tile: options.Tile = None,
    overlap: options.Overlap = None,
    scales: options.Scales = "1",
    flip: options.Flip = False,
    stretch: options.Stretch = False,
    alpha: options.AlphaOption = None,
    max_image_pixels: options.MaxImagePixels = None,
    decode_timeout: options.DecodeTimeout = 60.0,
    report: options.EvaluationReport = None,
    as_json: options.FiguresAsJson = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,  # noqa: ARG001 - for `__main__`
) -> None:
    """Measure a network, or existing masks, against ground truth: IoU, Dice, precision, recall.

    Images without ground truth are skipped and counted, images that fail are skipped and reported.

    Exit codes: 0 all images with ground truth were measured; 1 some failed; 2 the request is wrong, or the
    ground truth is unusable; 3 no images, or none with ground truth; 5 the report cannot be written.
    """
    from ..evaluation import accuracy
    from ..evaluation.ground_truth import TruthRequest
    from ..inference.options import InferenceOptions, ViewOptions
    from ..inputs.decode_options import DEFAULT_MAX_PIXELS, DecodeOptions
    from ..inputs.samples import Rendering
    from ..models.request import ModelRequest
    from ..report.evaluation import EvaluationReport
    from ..runs.request import PredictionRequest
    from . import tables
    from .display import ProgressBar

    views = ViewOptions(tile, overlap, flip)
    model = ModelRequest(backbone, weights, class_names, offline, network_card)
    prediction = PredictionRequest(
        model,
        DecodeOptions(
            values.input_size(context, resize, tile, model),
            workers,
            max_image_pixels or DEFAULT_MAX_PIXELS,
            decode_timeout,
            scales,
            Rendering(stretch, alpha),
        ),
        InferenceOptions(device, precision, kernels, batch_size, threads, views=views),
    )
    of_truth = TruthRequest(
        truth, split, truth_colors, truth_suffix, tuple(ignore_index or ()), truth_map, labelmap
    )
    request = accuracy.EvaluationRequest(images, of_truth, prediction, protocol, predictions, orientation)
    page = EvaluationReport(Path(report), images) if report is not None else None
    progress = ProgressBar(quiet=quiet)
    with contextlib.closing(progress):
        result = accuracy.evaluate(request, progress, page.add if page is not None else None)
    print_figures(result.as_json(), tables.evaluation, as_json=as_json)
    if page is not None:
        with contextlib.closing(progress):
            path = page.write(result, progress, prediction.decoding)
        print_message(f"report: see {path}", show=not quiet)
    raise typer.Exit(result.exit_code)


def compare(
    dir_a: options.DirectoryA,
    dir_b: options.DirectoryB,
    max_image_pixels: options.MaxMaskPixels = MOST_MASK_PIXELS,
    as_json: options.FiguresAsJson = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,  # noqa: ARG001 - for `__main__`
) -> None:
    """Compare the masks of two directories: equal pixels, IoU, the images that differ most.

    Exit codes: 0 all pairs were compared; 1 some failed; 2 the request is wrong; 3 no name is in both.
    """
    from ..evaluation import comparison
    from . import tables
    from .display import ProgressBar

    progress = ProgressBar(quiet=quiet)
    with contextlib.closing(progress):
        result = comparison.compare(Path(dir_a), Path(dir_b), progress, max_image_pixels)
    print_figures(result.as_json(), tables.comparison, as_json=as_json)
    raise typer.Exit(result.exit_code)
