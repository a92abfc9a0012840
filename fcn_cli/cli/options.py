"""The command line's options, each once: a command that takes one names its type."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..common.wording import alternatives
from . import option_values
from .input_options import not_a_file, not_empty


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

    FAST = "fast"
    TORCH = "torch"


class PruneHow(StrEnum):
    """What ``--prune`` takes; it stands alone for `CAREFUL`."""

    CAREFUL = "careful"
    FORCE = "force"


Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT...", help="Image files, directories (with all below them), quoted glob patterns."
    ),
]
FilesFrom = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", callback=not_empty, help="Take a list of image files, one a line; '-' is stdin."
    ),
]
Null = Annotated[bool, typer.Option("--null", help="The list is separated by NUL bytes (find -print0).")]
Root = Annotated[
    str | None,
    typer.Option(
        callback=not_empty,
        metavar="DIR",
        envvar="FCN_ROOT",
        show_default="current directory",
        help="Name outputs of listed files relative to this directory.",
    ),
]
Output = Annotated[
    str,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        envvar="FCN_OUTPUT",
        callback=not_a_file,
        help="Output directory.",
    ),
]
BackboneOption = Annotated[
    BackboneName,
    typer.Option(
        envvar="FCN_BACKBONE",
        metavar="NAME",
        parser=option_values.choice(BackboneName),
        autocompletion=option_values.complete(*BackboneName),
        help=f"The network: {alternatives(BackboneName)}. mobilenet_v2 is a small bundled preview for trying "
        "the tool: it mixes classes up; the ResNets are for real work.",
    ),
]
Backbones = Annotated[
    list[BackboneName] | None,
    typer.Argument(
        metavar="[BACKBONE]...",
        parser=option_values.choice(BackboneName),
        autocompletion=option_values.complete(*BackboneName),
        help=f"Some of {', '.join(BackboneName)}; all of them without a name.",
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        envvar="FCN_WEIGHTS",
        help="A checkpoint of yours instead of the official weights.",
    ),
]
ClassNames = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        envvar="FCN_CLASS_NAMES",
        help="Names for your checkpoint's classes, one a line; 'voc' for the 21 of Pascal VOC.",
    ),
]
Offline = Annotated[
    bool, typer.Option("--offline", envvar="FCN_OFFLINE", help="Never use the network to get weights.")
]
Device = Annotated[
    str,
    typer.Option(
        envvar="FCN_DEVICE",
        metavar="NAME",
        autocompletion=option_values.complete("auto", "cpu", "cuda"),
        help="auto, cpu, cuda or cuda:N.",
    ),
]
Threads = Annotated[
    Any,
    typer.Option(
        envvar="FCN_THREADS",
        metavar="N",
        parser=option_values.whole(1, word="auto"),
        autocompletion=option_values.complete("auto"),
        help="CPU threads of the network; auto: what affinity and cgroup allow.",
    ),
]
KernelsOption = Annotated[
    Kernels,
    typer.Option(
        envvar="FCN_KERNELS",
        metavar="NAME",
        parser=option_values.choice(Kernels),
        autocompletion=option_values.complete(*Kernels),
        help="fast: our own on a CPU, in fp32; torch: plain torchvision's.",
    ),
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        envvar="FCN_PRECISION",
        metavar="NAME",
        parser=option_values.choice(Precision),
        autocompletion=option_values.complete(*Precision),
        help=f"Arithmetic of the network: {alternatives(Precision)}. auto: fp32 on a CPU, bf16 on a GPU that "
        "has it. fp32 on a GPU is without TF32.",
    ),
]
BatchSize = Annotated[
    Any,
    typer.Option(
        "--batch-size",
        "-b",
        envvar="FCN_BATCH_SIZE",
        metavar="N",
        parser=option_values.whole(1, word="auto"),
        autocompletion=option_values.complete("auto"),
        help="Images of one shape per forward pass; auto: 1 on a CPU, 16 on a GPU.",
    ),
]
Workers = Annotated[
    Any,
    typer.Option(
        "--workers",
        "-j",
        envvar="FCN_WORKERS",
        metavar="N",
        parser=option_values.whole(0, word="auto"),
        autocompletion=option_values.complete("auto"),
        help="Decoding processes; auto: one per CPU, at most 16. 0 decodes in the main process.",
    ),
]
Size = Annotated[
    Any,
    typer.Option(metavar="WxH", parser=option_values.size, help="Size in pixels of what the network is fed."),
]
Rounds = Annotated[
    int, typer.Option(metavar="N", parser=option_values.whole(1), help="How often each is timed.")
]
Resize = Annotated[
    Any,
    typer.Option(
        envvar="FCN_RESIZE",
        metavar="N|none",
        parser=option_values.short_side,
        autocompletion=option_values.complete("none", "520"),
        help="Short side in pixels fed to the network; none: the photo's own size.",
    ),
]
Write = Annotated[
    Any,
    typer.Option(
        envvar="FCN_WRITE",
        metavar="LIST",
        parser=option_values.kinds,
        autocompletion=option_values.complete_kinds,
        help="What to write, of masks, color, overlay and confidence; separated by commas.",
    ),
]
MinConfidence = Annotated[
    float,
    typer.Option(
        envvar="FCN_MIN_CONFIDENCE",
        metavar="P",
        parser=option_values.number(0, 1),
        help="Pixels whose class has a smaller probability become void (255) in masks and colours.",
    ),
]
Palette = Annotated[
    str,
    typer.Option(
        envvar="FCN_PALETTE",
        metavar="NAME",
        autocompletion=option_values.complete_palettes,
        help="Class colours: hub (the PyTorch Hub page's), voc, or a JSON file of [r, g, b] triples.",
    ),
]
KeepExtension = Annotated[
    bool,
    typer.Option("--keep-extension", envvar="FCN_KEEP_EXTENSION", help="Write cat.jpg.png, not cat.png."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Redo what is done; allow settings to change.")]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Try images again that failed and have not changed.")
]
Prune = Annotated[
    PruneHow | None,
    typer.Option(
        "--prune",
        metavar="[=force]",
        help="Remove outputs and records of photos that are gone from the given directories. Refuses what "
        "looks like a disk that is not mounted, unless it is --prune=force.",
    ),
]
MaxImagePixels = Annotated[
    int | None,
    typer.Option(
        envvar="FCN_MAX_IMAGE_PIXELS",
        metavar="N",
        parser=option_values.whole(1),
        show_default="178956970, Pillow's error limit",
        help="Refuse larger photos before decoding them.",
    ),
]
DecodeTimeout = Annotated[
    float,
    typer.Option(
        envvar="FCN_DECODE_TIMEOUT",
        metavar="SECONDS",
        parser=option_values.number(0.1),
        help="Give up on a photo after so long.",
    ),
]
Wait = Annotated[
    float,
    typer.Option(
        envvar="FCN_WAIT",
        metavar="SECONDS",
        parser=option_values.number(0),
        help="Wait so long for another run that holds the output directory; then exit 4.",
    ),
]
LogFile = Annotated[
    Path | None,
    typer.Option(
        envvar="FCN_LOG_FILE", metavar="FILE", help="Append what -v says to this file, quiet or not."
    ),
]
FailFast = Annotated[bool, typer.Option("--fail-fast", help="Stop at the first failed image.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print each image's record on stdout as it finishes.")]
FiguresAsJson = Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", callback=option_values.not_both, help="Print only errors on stderr.")
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", callback=option_values.not_both, help="Print more on stderr.")
]
