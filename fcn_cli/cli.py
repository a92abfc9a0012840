"""The commands: parse, call, print. Nothing is decided here; torch comes with commands that need it only."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from . import __version__, options
from .errors import ExitCode, OutputLost, RequestError

app = typer.Typer(
    name="fcn",
    help="Segment folders of images with torchvision's Fully Convolutional Networks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
weights_app = typer.Typer(help="See, fetch and check the networks' weights.", rich_markup_mode=None)
app.add_typer(weights_app, name="weights")


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


@app.command()
def segment(
    inputs: options.Inputs = None,
    files_from: options.FilesFrom = None,
    null: options.Null = False,
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
    palette: options.Palette = "hub",
    keep_extension: options.KeepExtension = False,
    overwrite: options.Overwrite = False,
    retry_failed: options.RetryFailed = False,
    max_image_pixels: options.MaxImagePixels = None,
    decode_timeout: options.DecodeTimeout = 60.0,
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
    from . import run
    from .display import Display
    from .images import DEFAULT_MAX_PIXELS
    from .job import Job
    from .settings import Machinery

    listed = _listed(files_from, null=null)
    if not inputs and listed is None:
        raise RequestError(
            "nothing to segment was given; name an image, a folder, or a list with --files-from"
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
        kinds=write,
        palette=palette,
        keep_extension=keep_extension,
        overwrite=overwrite,
        retry_failed=retry_failed,
        fail_fast=fail_fast,
        dry_run=dry_run,
        machinery=Machinery(
            device, threads, batch_size, workers, max_image_pixels or DEFAULT_MAX_PIXELS, decode_timeout
        ),
    )
    display = Display(quiet=quiet, verbose=verbose, as_json=as_json)
    summary = run.segment(job, display)
    display.summed_up(summary, dry=dry_run)
    if dry_run:
        return
    if summary.exit_code == ExitCode.OK and display.stdout_error:
        raise OutputLost(f"stdout: cannot be written ({display.stdout_error}); the masks are done")
    raise typer.Exit(summary.exit_code)


def _listed(files_from: str | None, *, null: bool) -> list[str] | None:
    from .sources import parse_list

    if files_from is None:
        if null:
            raise RequestError("--null says how a --files-from list is separated; there is no --files-from")
        return None
    try:
        data = sys.stdin.buffer.read() if files_from == "-" else Path(files_from).read_bytes()
    except OSError as error:
        raise RequestError(f"--files-from {files_from}: cannot be read ({error.strerror})") from None
    return parse_list(data, null=null)


@weights_app.callback(invoke_without_command=True)
def _weights(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        weights_list()


@weights_app.command("list")
def weights_list() -> None:
    """Say for each backbone where its weights are."""
    from . import backbones
    from . import weights as files

    for name, backbone in backbones.BACKBONES.items():
        if isinstance(backbone.weights, backbones.BundledWeights):
            place = f"bundled ({backbone.weights.path})"
        else:
            found = files.cached(backbone.weights)
            place = str(found) if found else f"not here yet ({files.download_url(backbone.weights)})"
        typer.echo(f"{name:14}{place}")


@weights_app.command("fetch")
def weights_fetch(
    names: Annotated[
        list[options.BackboneName] | None,
        typer.Argument(metavar="[BACKBONE]...", help="Default: all."),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Put them here, to carry to another machine's FCN_WEIGHTS_DIR."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only errors on stderr.")] = False,
) -> None:
    """Download official weights, check them, and print where they are."""
    from . import backbones
    from . import weights as files
    from .display import Display

    for name in names or list(options.BackboneName):
        official = backbones.find(name.value).weights
        if isinstance(official, backbones.BundledWeights):
            typer.echo(official.path)
            continue
        path = files.fetch(official, Path(to) if to else None, progress=Display(quiet=quiet).downloading)
        typer.echo(path)


@weights_app.command("verify")
def weights_verify() -> None:
    """Check the hash of every weights file that is here; exit 2 if one is damaged."""
    from . import backbones
    from . import weights as files
    from .errors import WeightsError

    damaged = None
    for name, backbone in backbones.BACKBONES.items():
        own = backbone.weights
        path = own.path if isinstance(own, backbones.BundledWeights) else files.cached(own)
        try:
            state = f"ok       {files.verify(path, backbone.sha256).path}" if path else "not here yet"
        except WeightsError as error:
            state, damaged = f"damaged  {path}", error
        typer.echo(f"{name:14}{state}")
    if damaged:
        raise damaged


@app.command()
def bench(
    backbone: options.BackboneOption = options.BackboneName.RESNET50,
    size: options.Size = "693x520",
    batch_size: options.BatchSize = "auto",
    rounds: options.Rounds = 5,
    device: options.Device = "auto",
    threads: options.Threads = "auto",
    kernels: options.KernelsOption = options.Kernels.FAST,
    precision: options.PrecisionOption = options.Precision.AUTO,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Time this machine: images/s of plain torchvision and of fcn, in turn, with random weights.

    torchvision runs as on the PyTorch Hub page, auxiliary head and all, and without that head. The limit of
    direct convolution is what the machine's best matrix product would reach without a break.
    """
    import json

    from . import bench as benchmark
    from .display import bench_table
    from .engine import plan

    how = plan(device, precision.value, kernels.value, batch_size, threads)
    measured = benchmark.measure(backbone.value, size[0], size[1], how, rounds)
    if as_json:
        typer.echo(json.dumps(measured.as_json()))
    else:
        bench_table(measured.as_json())


@app.command()
def info() -> None:
    """Print versions, devices, cached weights and thread settings."""
    from . import info as information

    typer.echo("\n".join(f"{name:14}{value}" for name, value in information.describe()))
    weights_list()
