"""The commands: parse, call, print. Nothing is decided here; torch comes with commands that need it only."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from . import __version__, cli_weights, command_line, input_options, options, options_evaluate
from .common.errors import ExitCode, OutputLost, RequestError
from .evaluation.choices import Orientation, Protocol
from .messages import give_up_stdout, open_log, say, write_line

app = typer.Typer(
    name="fcn",
    help="Segment folders of images with torchvision's Fully Convolutional Networks.",
    cls=command_line.Group,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(cli_weights.app, name="weights")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fcn {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


class _SegmentCommand(command_line.Command):
    """Lets ``--prune`` stand alone: Typer has no options with an optional value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, with the bare option's value filled in."""
        end = args.index("--") if "--" in args else len(args)
        filled = ["--prune=careful" if argument == "--prune" else argument for argument in args[:end]]
        return super().parse_args(ctx, [*filled, *args[end:]])


@app.command(cls=_SegmentCommand)
def segment(
    inputs: options.Inputs = None,
    files_from: options.FilesFrom = None,
    null: options.Null = False,
    include: input_options.Include = None,
    exclude: input_options.Exclude = None,
    root: options.Root = None,
    output: options.Output = "fcn_output",
    backbone: options.BackboneOption = options.BackboneName.RESNET50,
    weights: options.Weights = None,
    class_names: options.ClassNames = None,
    offline: options.Offline = False,
    device: options.Device = "auto",
    threads: options.Threads = "auto",
    kernels: options.KernelsOption = options.Kernels.FAST,
    precision: options.PrecisionOption = options.Precision.AUTO,
    batch_size: options.BatchSize = "auto",
    workers: options.Workers = "auto",
    resize: options.Resize = "520",
    write: options.Write = "masks,color",
    min_confidence: options.MinConfidence = 0.0,
    palette: options.Palette = "hub",
    keep_extension: options.KeepExtension = False,
    overwrite: options.Overwrite = False,
    retry_failed: options.RetryFailed = False,
    prune: options.Prune = None,
    max_image_pixels: options.MaxImagePixels = None,
    decode_timeout: options.DecodeTimeout = 60.0,
    wait: options.Wait = 0.0,
    log_file: options.LogFile = None,
    fail_fast: options.FailFast = False,
    dry_run: options.DryRun = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Segment images into masks, paletted PNGs and per-class pixel counts.

    A run picks up where an earlier one into the same output directory ended.

    Exit codes: 0 every image is done; 1 some have no mask, the rest are done; 2 the request is wrong;
    3 nothing to segment was found; 4 another run holds the output directory; 5 ended early (disk full,
    output lost, --fail-fast); 70 a bug; 129, 130 and 143 ended by a signal.
    """
    from .display import Display
    from .inputs.decoder import DEFAULT_MAX_PIXELS
    from .runs import segment as segmentation
    from .runs.request import Job, Machinery

    if log_file is not None:
        open_log(log_file)
    listed = _listed(files_from, null=null)
    if not inputs and listed is None:
        raise RequestError(
            "nothing to segment was given; name an image, a directory, or a list with --files-from"
        )
    job = Job(
        inputs=inputs or (),
        listed=listed,
        root=root,
        output=output,
        backbone=backbone.value,
        weights_file=weights,
        class_names=class_names,
        offline=offline,
        resize=resize,
        precision=precision.value,
        kernels=kernels.value,
        min_confidence=min_confidence,
        kinds=write,
        palette=palette,
        keep_extension=keep_extension,
        include=include or (),
        exclude=exclude or (),
        overwrite=overwrite,
        retry_failed=retry_failed,
        prune=prune.value if prune is not None else None,
        fail_fast=fail_fast,
        dry_run=dry_run,
        wait=wait,
        machinery=Machinery(
            device, threads, batch_size, workers, max_image_pixels or DEFAULT_MAX_PIXELS, decode_timeout
        ),
    )
    display = Display(quiet=quiet, verbose=verbose, as_json=as_json, dry=dry_run)
    summary = segmentation.segment(job, display)
    display.summed_up(summary)
    if dry_run:
        return
    if summary.exit_code == ExitCode.OK and display.stdout_error:
        raise OutputLost(f"stdout: cannot be written ({display.stdout_error}); the masks are done")
    raise typer.Exit(summary.exit_code)


def _listed(files_from: str | None, *, null: bool) -> list[str] | None:
    from .inputs.file_lists import parse_list

    if files_from is None:
        if null:
            raise RequestError("--null says how a --files-from list is separated; there is no --files-from")
        return None
    try:
        data = sys.stdin.buffer.read() if files_from == "-" else Path(files_from).read_bytes()
    except OSError as error:
        raise RequestError(f"--files-from {files_from}: cannot be read ({error.strerror})") from None
    try:
        return parse_list(data, null=null)
    except RequestError as error:
        raise RequestError(f"--files-from {files_from}: {error}") from None


@app.command(cls=command_line.Command)
def evaluate(
    images: options_evaluate.Images,
    truth: options_evaluate.Truth,
    predictions: options_evaluate.Predictions = None,
    split: options_evaluate.Split = None,
    truth_colors: options_evaluate.TruthColorsOption = None,
    protocol: options_evaluate.ProtocolOption = Protocol.ORIGINAL,
    orientation: options_evaluate.OrientationOption = Orientation.AUTO,
    backbone: options.BackboneOption = options.BackboneName.RESNET50,
    weights: options.Weights = None,
    class_names: options.ClassNames = None,
    offline: options.Offline = False,
    device: options.Device = "auto",
    threads: options.Threads = "auto",
    kernels: options.KernelsOption = options.Kernels.FAST,
    precision: options.PrecisionOption = options.Precision.AUTO,
    batch_size: options.BatchSize = "auto",
    workers: options.Workers = "auto",
    resize: options.Resize = "520",
    max_image_pixels: options.MaxImagePixels = None,
    decode_timeout: options.DecodeTimeout = 60.0,
    as_json: options.FiguresAsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure a network, or a directory of masks, against ground truth: IoU and accuracy.

    Photos without truth are left out, and counted. A photo that fails, because its truth has another size
    for example, is left out too.

    Exit codes: 0 every photo with truth was measured; 1 some failed; 2 the request is wrong, or no truth can
    be used; 3 there is no photo, or none with truth.
    """
    from . import tables
    from .evaluation import accuracy
    from .inputs.decoder import DEFAULT_MAX_PIXELS
    from .progress import Progress
    from .runs.request import Job, Machinery

    job = Job(
        backbone=backbone.value,
        weights_file=weights,
        class_names=class_names,
        offline=offline,
        resize=resize,
        precision=precision.value,
        kernels=kernels.value,
        machinery=Machinery(
            device, threads, batch_size, workers, max_image_pixels or DEFAULT_MAX_PIXELS, decode_timeout
        ),
    )
    request = accuracy.Request(images, truth, job, split, protocol, predictions, orientation, truth_colors)
    progress = Progress(quiet=quiet)
    with contextlib.closing(progress):
        result = accuracy.evaluate(request, progress)
    _print_figures(result.as_json(), tables.evaluation, as_json=as_json)
    raise typer.Exit(result.exit_code)


@app.command(cls=command_line.Command)
def compare(
    dir_a: Annotated[Path, typer.Argument(metavar="DIR_A", help="An output directory, or any of masks.")],
    dir_b: Annotated[Path, typer.Argument(metavar="DIR_B", help="Another one.")],
    as_json: options.FiguresAsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Say how the masks of two directories agree: equal pixels, IoU, the images that differ most.

    Exit codes: 0 all were compared; 1 some could not be; 2 the request is wrong; 3 no name is in both.
    """
    from . import tables
    from .evaluation import comparison
    from .progress import Progress

    progress = Progress(quiet=quiet)
    with contextlib.closing(progress):
        result = comparison.compare(dir_a, dir_b, progress)
    _print_figures(result.as_json(), tables.comparison, as_json=as_json)
    raise typer.Exit(result.exit_code)


def _print_figures(
    figures: dict[str, Any], table: Callable[[dict[str, Any]], None], *, as_json: bool
) -> None:
    """Print what was asked for on stdout, and what failed on stderr."""
    for failure in figures.get("failures", ()):
        say(f"{failure['image']}: {failure['message']}")
    try:
        if as_json:
            sys.stdout.write(json.dumps(figures) + "\n")
        else:
            table(figures)
        sys.stdout.flush()
    except OSError as error:
        if reason := give_up_stdout(error):
            raise OutputLost(f"stdout: cannot be written ({reason})") from None


@app.command(cls=command_line.Command)
def bench(
    backbone: options.BackboneOption = options.BackboneName.RESNET50,
    size: options.Size = "693x520",
    batch_size: options.BatchSize = "auto",
    rounds: options.Rounds = 5,
    device: options.Device = "auto",
    threads: options.Threads = "auto",
    kernels: options.KernelsOption = options.Kernels.FAST,
    precision: options.PrecisionOption = options.Precision.AUTO,
    as_json: options.FiguresAsJson = False,
) -> None:
    """Time this machine: images/s of plain torchvision and of fcn, in turn, with random weights.

    torchvision runs as on the PyTorch Hub page, auxiliary head and all, and without that head. The limit of
    direct convolution is what the machine's best matrix product would reach without a break.
    """
    from . import tables
    from .evaluation import speed
    from .inference.execution import plan

    how = plan(device, precision.value, kernels.value, batch_size, threads)
    measured = speed.measure(backbone.value, size[0], size[1], how, rounds)
    _print_figures(measured.as_json(), tables.bench, as_json=as_json)


@app.command(cls=command_line.Command)
def info() -> None:
    """Print versions, devices, cached weights and thread settings."""
    from . import info as information

    for name, value in information.describe():
        write_line(f"{name:14}{value}", sys.stdout)
    cli_weights.list_weights()
