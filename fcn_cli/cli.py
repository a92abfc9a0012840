"""The commands: parse, call, print. Nothing is decided here; torch comes with commands that need it only."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from . import __version__
from .errors import ExitCode, RequestError

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


class BackboneName(StrEnum):
    """The names in the registry, for ``--help``; a test holds them equal."""

    RESNET50 = "resnet50"
    RESNET101 = "resnet101"
    MOBILENET_V2 = "mobilenet_v2"


class Precision(StrEnum):
    """What ``--precision`` takes."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class Kernels(StrEnum):
    """What ``--kernels`` takes."""

    TORCH = "torch"


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


def _or_auto(text: str) -> int | None:
    """Parse ``auto`` as None and anything else as a whole number of at least 1."""
    if text == "auto":
        return None
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise typer.BadParameter("takes 'auto' or a whole number of at least 1")
    return int(text)


def _workers(text: str) -> int | None:
    return 0 if text == "0" else _or_auto(text)


def _resize(text: str) -> int | None:
    if text == "none":
        return None
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 16384:
        raise typer.BadParameter("takes 'none' or a short side of 1 to 16384 pixels")
    return int(text)


def _kinds(text: str) -> tuple[str, ...]:
    from .settings import KINDS

    asked = {part.strip() for part in text.split(",")} - {""}
    if not asked or (unknown := asked - set(KINDS)):
        named = f"{', '.join(sorted(unknown))}: " if asked else ""
        raise typer.BadParameter(f"{named}takes a comma-separated list of {', '.join(KINDS)}")
    return tuple(kind for kind in KINDS if kind in asked)


@app.command()
def segment(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT...", help="Image files, folders (with all below them), quoted glob patterns."
        ),
    ] = None,
    files_from: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Take a list of image files, one a line; '-' is stdin."),
    ] = None,
    null: Annotated[
        bool, typer.Option("--null", help="The list is separated by NUL bytes (find -print0).")
    ] = False,
    root: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            envvar="FCN_ROOT",
            help="Name outputs of listed files relative to this folder  [default: current folder]",
        ),
    ] = None,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="DIR", envvar="FCN_OUTPUT", help="Output directory.")
    ] = "fcn_output",
    backbone: Annotated[
        BackboneName,
        typer.Option(
            envvar="FCN_BACKBONE",
            help="The network. mobilenet_v2 is a small bundled preview for trying the tool: it mixes "
            "classes up; the ResNets are for real work.",
        ),
    ] = BackboneName.RESNET50,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            envvar="FCN_WEIGHTS",
            help="A checkpoint of yours instead of the official weights.",
        ),
    ] = None,
    class_names: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            envvar="FCN_CLASS_NAMES",
            help="Names for your checkpoint's classes, one a line; 'voc' for the 21 of Pascal VOC.",
        ),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", envvar="FCN_OFFLINE", help="Never use the network to get weights.")
    ] = False,
    device: Annotated[
        str, typer.Option(envvar="FCN_DEVICE", metavar="NAME", help="auto, cpu, cuda, cuda:N.")
    ] = "auto",
    threads: Annotated[
        Any,
        typer.Option(
            envvar="FCN_THREADS",
            metavar="N",
            parser=_or_auto,
            help="CPU threads of the network; auto: what affinity and cgroup allow.",
        ),
    ] = "auto",
    kernels: Annotated[
        Kernels, typer.Option(envvar="FCN_KERNELS", help="Whose CPU kernels to run.")
    ] = Kernels.TORCH,
    precision: Annotated[
        Precision,
        typer.Option(
            envvar="FCN_PRECISION",
            help="Arithmetic of the network; auto: fp32 on a CPU, bf16 on a GPU that has it. "
            "fp32 on a GPU is without TF32.",
        ),
    ] = Precision.AUTO,
    batch_size: Annotated[
        Any,
        typer.Option(
            "--batch-size",
            "-b",
            envvar="FCN_BATCH_SIZE",
            metavar="N",
            parser=_or_auto,
            help="Images of one shape per forward pass; auto: 1 on a CPU, 16 on a GPU.",
        ),
    ] = "auto",
    workers: Annotated[
        Any,
        typer.Option(
            "--workers",
            "-j",
            envvar="FCN_WORKERS",
            metavar="N",
            parser=_workers,
            help="Decoding processes; auto: one per CPU, at most 16. 0 decodes in the main process.",
        ),
    ] = "auto",
    resize: Annotated[
        Any,
        typer.Option(
            envvar="FCN_RESIZE",
            metavar="N|none",
            parser=_resize,
            help="Short side in pixels fed to the network; none: the photo's own size.",
        ),
    ] = "520",
    write: Annotated[
        Any,
        typer.Option(
            envvar="FCN_WRITE", metavar="LIST", parser=_kinds, help="What to write, of: masks,color,overlay."
        ),
    ] = "masks,color",
    palette: Annotated[
        str,
        typer.Option(
            envvar="FCN_PALETTE",
            metavar="NAME",
            help="Class colours: hub (the PyTorch Hub page's), voc, or a JSON file of [r, g, b] triples.",
        ),
    ] = "hub",
    keep_extension: Annotated[
        bool,
        typer.Option("--keep-extension", envvar="FCN_KEEP_EXTENSION", help="Write cat.jpg.png, not cat.png."),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Redo what is done; allow settings to change.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try images again that failed and have not changed.")
    ] = False,
    max_image_pixels: Annotated[
        int | None,
        typer.Option(
            envvar="FCN_MAX_IMAGE_PIXELS",
            metavar="N",
            min=1,
            help="Refuse larger photos before decoding them.  [default: 178956970, Pillow's error limit]",
        ),
    ] = None,
    decode_timeout: Annotated[
        float,
        typer.Option(
            envvar="FCN_DECODE_TIMEOUT", metavar="SECONDS", min=0.1, help="Give up on a photo after so long."
        ),
    ] = 60.0,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first failed image.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each image's record on stdout as it finishes.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only errors on stderr.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="More on stderr.")] = False,
) -> None:
    """Segment images into masks, paletted PNGs and per-class pixel counts.

    A run picks up where an earlier one into the same output directory ended.

    Exit codes: 0 every image is done; 1 some have no mask, the rest are done; 2 the request is wrong;
    3 nothing to segment was found; 4 another run holds the output directory; 5 ended early (disk full,
    output lost, --fail-fast); 70 a bug; 130 and 143 interrupted.
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
    raise typer.Exit(summary.exit_code if not dry_run else ExitCode.OK)


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
        list[BackboneName] | None, typer.Argument(metavar="[BACKBONE]...", help="Default: all of them.")
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

    for name in names or list(BackboneName):
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
def info() -> None:
    """Print versions, devices, cached weights and thread settings."""
    from . import info as information

    typer.echo("\n".join(f"{name:14}{value}" for name, value in information.describe()))
    weights_list()
