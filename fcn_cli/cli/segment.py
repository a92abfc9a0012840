"""``fcn segment``: the main command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from ..common.errors import RequestError
from ..models.registry import DEFAULT_BACKBONE
from . import input_options, network_options, one_photo, options, output_options
from .console import open_log
from .report import check_place, report_after

if TYPE_CHECKING:
    from ..runs.report import Summary
    from ..runs.request import SegmentRequest
    from .run_display import Display


def segment(
    context: typer.Context,
    inputs: input_options.Inputs = None,
    files_from: input_options.FilesFrom = None,
    null: input_options.Null = False,
    include: input_options.Include = None,
    exclude: input_options.Exclude = None,
    ignore_case: input_options.IgnoreCase = False,
    root: input_options.Root = None,
    output: output_options.Output = "fcn_output",
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
    write: output_options.Write = None,
    min_confidence: network_options.MinConfidence = 0.0,
    palette: output_options.Palette = "hub",
    opacity: output_options.Opacity = 0.5,
    legend: output_options.Legend = False,
    classes: output_options.Classes = None,
    keep_extension: output_options.KeepExtension = False,
    overwrite: output_options.Overwrite = False,
    retry_failed: output_options.RetryFailed = False,
    prune: output_options.Prune = None,
    watch: input_options.Watch = False,
    report: output_options.Report = False,
    max_image_pixels: network_options.MaxImagePixels = None,
    decode_timeout: network_options.DecodeTimeout = 60.0,
    shard: output_options.ShardOption = None,
    ray: output_options.RayOption = None,
    wait: output_options.Wait = 0.0,
    log_file: options.LogFile = None,
    fail_fast: options.FailFast = False,
    dry_run: options.DryRun = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Segment images into masks, paletted PNGs and per-class pixel counts.

    A run continues an earlier run into the same output directory. With `-o -`, one image (`-` is stdin)
    becomes one PNG on stdout.

    Exit codes: 0 every image is done; 1 some images have no mask, the rest are done; 2 the request is wrong;
    3 no image was found; 4 another run holds the output directory; 5 ended early (disk full, output or device
    lost, --fail-fast), or stdout or the log could not be written; 70 a bug in fcn; 129, 130 and 143 ended by
    a signal (a --watch: 0 or 1).
    """
    from ..common.output_layout import DEFAULT_KINDS
    from ..inference.options import InferenceOptions, ViewOptions
    from ..inputs.decode_options import DecodeOptions
    from ..inputs.decoder import DEFAULT_MAX_PIXELS
    from ..inputs.discovery import InputRequest
    from ..inputs.samples import Rendering
    from ..models.request import ModelRequest
    from ..outputs.looks import LookRequest
    from ..outputs.request import OutputRequest
    from ..runs.request import PredictionRequest, ResumeOptions, SegmentRequest
    from .run_display import Display

    if log_file is not None:
        open_log(log_file, output)
    _check_classes(context, write)
    if report:
        check_place(output)
    short_side, views = network_options.short_side(context, resize, tile), ViewOptions(tile, overlap, flip)
    prediction = PredictionRequest(
        ModelRequest(backbone, weights, class_names, offline),
        DecodeOptions(
            short_side,
            workers,
            max_image_pixels or DEFAULT_MAX_PIXELS,
            decode_timeout,
            scales,
            Rendering(stretch, alpha),
        ),
        InferenceOptions(device, precision, kernels, batch_size, threads, min_confidence, views),
    )
    look = LookRequest(palette, opacity, legend, classes)
    display = Display(quiet=quiet, verbose=verbose, as_json=as_json, dry=dry_run)
    if one_photo.is_asked_for(context, inputs or (), output):
        one_photo.segment_one((inputs or [""])[0], one_photo.kind_of(write), look, prediction, display)
        return
    request = SegmentRequest(
        InputRequest(
            inputs or (),
            _listed(inputs, files_from, null=null),
            root,
            include or (),
            exclude or (),
            ignore_case=ignore_case,
        ),
        OutputRequest(output, write or DEFAULT_KINDS, look, keep_extension, log_file),
        prediction,
        ResumeOptions(overwrite, retry_failed, prune),
        wait=wait,
        fail_fast=fail_fast,
        dry_run=dry_run,
        shard=shard,
        ray=ray,
    )
    summary = _run(request, display, watch=watch)
    display.summed_up(summary)
    if not dry_run:
        if report:
            report_after(summary, prediction.decoding.max_pixels, quiet=quiet)
        raise typer.Exit(summary.exit_code)


def _run(request: SegmentRequest, display: Display, *, watch: bool) -> Summary:
    from ..cluster import segment as on_ray
    from ..runs import segment as here
    from ..runs import watch as watching

    run = watching.watch if watch else on_ray.segment if request.ray else here.segment
    return run(request, display)


def _check_classes(context: typer.Context, kinds: Sequence[str] | None) -> None:
    """Refuse ``--classes`` where there are no cutouts: it does not restrict what is segmented."""
    source = context.get_parameter_source("classes")
    if source is not None and source.name == "COMMANDLINE" and "cutout" not in (kinds or ()):
        raise RequestError("--classes says which classes cutouts keep: add cutout to --write")


def _listed(inputs: Sequence[str] | None, files_from: str | None, *, null: bool) -> list[str] | None:
    from ..inputs.file_lists import parse_list, read_list

    if files_from is None:
        if null:
            raise RequestError("--null says how a --files-from list is separated; there is no --files-from")
        if not inputs:
            raise RequestError(
                "nothing to segment was given; name an image, a directory, or a list with --files-from"
            )
        return None
    try:
        return parse_list(read_list(files_from), null=null)
    except OSError as error:
        raise RequestError(f"--files-from {files_from}: cannot be read ({error.strerror or error})") from None
    except RequestError as error:
        raise RequestError(f"--files-from {files_from}: {error}") from None
