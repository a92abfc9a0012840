"""``fcn segment``: the main command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from ..common import output_layout, resources
from ..common.errors import RequestError
from ..common.output_layout import CUTOUT
from ..models.registry import DEFAULT_BACKBONE
from . import one_image, options, values
from .console import open_log
from .output_commands import check_report_place, report_after

if TYPE_CHECKING:
    from ..runs.report import Summary
    from ..runs.request import SegmentRequest
    from .display import Display


def segment(
    context: typer.Context,
    inputs: options.Inputs = None,
    files_from: options.FilesFrom = None,
    null: options.Null = False,
    include: options.Include = None,
    exclude: options.Exclude = None,
    ignore_case: options.IgnoreCase = False,
    root: options.Root = None,
    output: options.Output = "fcn_output",
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
    write: options.Write = None,
    min_confidence: options.MinConfidence = "0",
    map: options.Map = None,  # noqa: A002 - the option's name
    min_region: options.MinRegion = 0,
    palette: options.Palette = "hub",
    opacity: options.Opacity = 0.5,
    legend: options.Legend = False,
    cutout: options.Cutout = None,
    crop: options.Crop = None,
    background: options.Background = None,
    keep_extension: options.KeepExtension = False,
    overwrite: options.Overwrite = False,
    retry_failed: options.RetryFailed = False,
    prune: options.Prune = None,
    watch: options.Watch = False,
    report: options.Report = False,
    max_image_pixels: options.MaxImagePixels = None,
    decode_timeout: options.DecodeTimeout = 60.0,
    shard: options.ShardOption = None,
    ray: options.RayOption = None,
    wait: options.Wait = 0.0,
    log_file: options.LogFile = None,
    fail_fast: options.FailFast = False,
    dry_run: options.DryRun = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Segment images into masks, colour PNGs and pixel counts per class.

    Images that are done are skipped, so the same command continues an interrupted run. With `-o cat.png` or
    `-o -`, one image (`-` is stdin) becomes a PNG file, or a PNG on stdout. Options can be set in the
    environment too, for example FCN_BACKBONE=resnet101; see docs/options.md.

    Exit codes: 0 all images are done; 1 some images failed, the others are done; 2 the request is wrong; 3 no
    images were found; 4 another run is using the output directory; 5 stopped early (disk full, output or
    device lost, --fail-fast), or stdout or the log could not be written; 70 a bug in fcn; 129, 130 and 143
    stopped by a signal (--watch: 0 or 1).
    """
    with resources.objects_that_stay():
        from ..inference.options import InferenceOptions, ViewOptions
        from ..inputs.decode_options import DEFAULT_MAX_PIXELS, DecodeOptions
        from ..inputs.discovery import InputRequest
        from ..inputs.samples import Rendering
        from ..models.request import ModelRequest
        from ..outputs.label_rules import LabelRules, read_map
        from ..outputs.looks import LookRequest
        from ..outputs.request import OutputRequest
        from ..runs.request import PredictionRequest, ResumeOptions, SegmentRequest
        from .display import Display

    if log_file is not None:
        open_log(log_file, output)
    if report:
        check_report_place(output)
    model = ModelRequest(backbone, weights, class_names, offline, network_card)
    size, views = values.input_size(context, resize, tile, model), ViewOptions(tile, overlap, flip)
    prediction = PredictionRequest(
        model,
        DecodeOptions(
            size,
            workers,
            max_image_pixels or DEFAULT_MAX_PIXELS,
            decode_timeout,
            scales,
            Rendering(stretch, alpha),
        ),
        InferenceOptions(device, precision, kernels, batch_size, threads, min_confidence, views),
        LabelRules(read_map(map), min_region),
    )
    look = LookRequest(palette, opacity, legend, cutout or None, crop, background)
    with_cutouts = any(option is not None for option in (cutout, crop, background))
    display = Display(quiet=quiet, verbose=verbose, as_json=as_json, dry=dry_run)
    if one_image.is_asked_for(context, inputs or (), output):
        one_image.segment_one(
            (inputs or [""])[0],
            output,
            one_image.chosen_type(write, cutout=with_cutouts),
            look,
            prediction,
            display,
        )
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
        OutputRequest(output, _types(write, cutout=with_cutouts), look, keep_extension, log_file),
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


def _types(write: Sequence[str] | None, *, cutout: bool) -> Sequence[str]:
    types = write or output_layout.DEFAULT_OUTPUT_TYPES
    return (*types, CUTOUT) if cutout and CUTOUT not in types else types


def _run(request: SegmentRequest, display: Display, *, watch: bool) -> Summary:
    if watch:
        from ..runs.watch import watch as run_watch

        return run_watch(request, display)
    if request.ray:
        from ..cluster.driver import segment as segment_on_ray

        return segment_on_ray(request, display)
    from ..runs.segment import segment as segment_here

    return segment_here(request, display)


def _listed(inputs: Sequence[str] | None, files_from: str | None, *, null: bool) -> list[str] | None:
    from ..inputs.file_lists import parse_list, read_list

    if files_from is None:
        if null:
            raise RequestError("--null needs --files-from")
        if not inputs:
            raise RequestError("no input; give an image, a directory, or a list with --files-from")
        return None
    try:
        return parse_list(read_list(files_from), null=null)
    except OSError as error:
        raise RequestError(f"--files-from {files_from}: cannot be read ({error.strerror or error})") from None
    except RequestError as error:
        raise RequestError(f"--files-from {files_from}: {error}") from None
