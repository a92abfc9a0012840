"""``fcn evaluate``: measure a network or masks against ground truth."""

from __future__ import annotations

import contextlib
from pathlib import Path

import typer

from ..evaluation.choices import Orientation, Protocol
from ..models.registry import DEFAULT_BACKBONE
from . import evaluate_options, network_options, options
from .console import print_message
from .figures import print_figures


def evaluate(
    context: typer.Context,
    images: evaluate_options.Images,
    truth: evaluate_options.Truth,
    predictions: evaluate_options.Predictions = None,
    split: evaluate_options.Split = None,
    truth_colors: evaluate_options.TruthColorsOption = None,
    protocol: evaluate_options.ProtocolOption = Protocol.ORIGINAL,
    orientation: evaluate_options.OrientationOption = Orientation.AUTO,
    backbone: network_options.BackboneOption = DEFAULT_BACKBONE,
    weights: network_options.Weights = None,
    class_names: network_options.ClassNames = None,
    offline: network_options.Offline = False,
    device: network_options.Device = "auto",
    threads: network_options.Threads = "auto",
    kernels: network_options.KernelsOption = network_options.Kernels.AUTO,
    precision: network_options.PrecisionOption = network_options.Precision.AUTO,
    batch_size: network_options.BatchSize = "auto",
    workers: network_options.Workers = "auto",
    resize: network_options.Resize = "520",
    tile: network_options.Tile = None,
    overlap: network_options.Overlap = None,
    scales: network_options.Scales = "1",
    flip: network_options.Flip = False,
    stretch: network_options.Stretch = False,
    alpha: network_options.AlphaOption = None,
    max_image_pixels: network_options.MaxImagePixels = None,
    decode_timeout: network_options.DecodeTimeout = 60.0,
    report: evaluate_options.Report = None,
    as_json: options.FiguresAsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure a network, or a directory of masks, against ground truth: IoU and accuracy.

    Photos without truth are skipped and counted. Photos that fail, for example because their truth has
    another size, are skipped and reported.

    Exit codes: 0 every photo with truth was measured; 1 some failed; 2 the request is wrong or the truth is
    unusable; 3 there is no photo, or no photo with truth; 5 the report cannot be written.
    """
    from ..evaluation import accuracy
    from ..evaluation.ground_truth import TruthRequest
    from ..inference.options import InferenceOptions, ViewOptions
    from ..inputs.decode_options import DecodeOptions
    from ..inputs.decoder import DEFAULT_MAX_PIXELS
    from ..inputs.samples import Rendering
    from ..models.request import ModelRequest
    from ..report.evaluation_report import EvaluationReport
    from ..runs.request import PredictionRequest
    from . import tables
    from .progress_bar import ProgressBar

    views = ViewOptions(tile, overlap, flip)
    prediction = PredictionRequest(
        ModelRequest(backbone, weights, class_names, offline),
        DecodeOptions(
            network_options.short_side(context, resize, tile),
            workers,
            max_image_pixels or DEFAULT_MAX_PIXELS,
            decode_timeout,
            scales,
            Rendering(stretch, alpha),
        ),
        InferenceOptions(device, precision, kernels, batch_size, threads, views=views),
    )
    request = accuracy.EvaluationRequest(
        images, TruthRequest(truth, split, truth_colors), prediction, protocol, predictions, orientation
    )
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
