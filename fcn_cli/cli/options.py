"""The options of the command line. Each is defined once, as a type for the commands' parameters."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..common.wording import alternatives
from . import option_values
from .input_options import not_a_file, not_empty


class BackboneName(StrEnum):
    """The registry's names, without importing it for ``--help``; a test checks that they are equal."""

    RESNET50 = "resnet50"
    RESNET101 = "resnet101"
    MOBILENET_V2 = "mobilenet_v2"


class Precision(StrEnum):
    """The values of ``--precision``."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class Kernels(StrEnum):
    """The values of ``--kernels``."""

    FAST = "fast"
    TORCH = "torch"


class PruneMode(StrEnum):
    """The values of ``--prune``; without a value it means `CAREFUL`."""

    CAREFUL = "careful"
    FORCE = "force"


Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT...", help="Image files, directories (searched recursively), quoted glob patterns."
    ),
]
FilesFrom = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", callback=not_empty, help="Read image files from a list, one per line; '-' is stdin."
    ),
]
Null = Annotated[bool, typer.Option("--null", help="NUL bytes separate the list, as from find -print0.")]
Root = Annotated[
    str | None,
    typer.Option(
        callback=not_empty,
        metavar="DIR",
        envvar="FCN_ROOT",
        show_default="current directory",
        help="The output names of listed files are relative to this directory.",
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
        "the tool; it confuses classes, so use a ResNet for real work.",
    ),
]
Backbones = Annotated[
    list[BackboneName] | None,
    typer.Argument(
        metavar="[BACKBONE]...",
        parser=option_values.choice(BackboneName),
        autocompletion=option_values.complete(*BackboneName),
        help=f"One or more of {', '.join(BackboneName)}; all of them if none is given.",
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        envvar="FCN_WEIGHTS",
        help="Your own checkpoint instead of the official weights.",
    ),
]
ClassNames = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        envvar="FCN_CLASS_NAMES",
        help="The class names of your checkpoint, one per line; 'voc' means the 21 of Pascal VOC.",
    ),
]
Offline = Annotated[bool, typer.Option("--offline", envvar="FCN_OFFLINE", help="Never download weights.")]
Device = Annotated[
    str,
    typer.Option(
        envvar="FCN_DEVICE",
        metavar="NAME",
        autocompletion=option_values.complete("auto", "cpu", "cuda"),
        help="Device of the network: auto, cpu, cuda or cuda:N. auto: cuda if available.",
    ),
]
Threads = Annotated[
    Any,
    typer.Option(
        envvar="FCN_THREADS",
        metavar="N",
        parser=option_values.whole(1, word="auto"),
        autocompletion=option_values.complete("auto"),
        help="CPU threads of the network; auto: as many as CPU affinity and cgroup quota allow.",
    ),
]
KernelsOption = Annotated[
    Kernels,
    typer.Option(
        envvar="FCN_KERNELS",
        metavar="NAME",
        parser=option_values.choice(Kernels),
        autocompletion=option_values.complete(*Kernels),
        help="fast: our own kernels on a CPU in fp32, PyTorch's elsewhere; torch: always PyTorch's.",
    ),
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        envvar="FCN_PRECISION",
        metavar="NAME",
        parser=option_values.choice(Precision),
        autocompletion=option_values.complete(*Precision),
        help=f"Arithmetic of the network: {alternatives(Precision)}. auto: fp32 on a CPU; on a GPU bf16 "
        "from compute capability 8.0, fp16 on 7.x, else fp32. fp32 on a GPU does not use TF32.",
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
        help="Images of one shape per forward pass; auto: 1 on a CPU, up to 16 on a GPU.",
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
        help="Decoding processes; auto: one per CPU, at most 16; 0: decode in the main process.",
    ),
]
Size = Annotated[
    Any,
    typer.Option(metavar="WxH", parser=option_values.size, help="Size of the network's input in pixels."),
]
Rounds = Annotated[int, typer.Option(metavar="N", parser=option_values.whole(1), help="Timed rounds.")]
Resize = Annotated[
    Any,
    typer.Option(
        envvar="FCN_RESIZE",
        metavar="N|none",
        parser=option_values.short_side,
        autocompletion=option_values.complete("none", "520"),
        help="Short side of the network's input in pixels; none: the photo's own size.",
    ),
]
Write = Annotated[
    Any,
    typer.Option(
        envvar="FCN_WRITE",
        metavar="LIST",
        parser=option_values.kinds,
        autocompletion=option_values.complete_kinds,
        help="Output kinds, separated by commas: masks, color, overlay, confidence.",
    ),
]
MinConfidence = Annotated[
    float,
    typer.Option(
        envvar="FCN_MIN_CONFIDENCE",
        metavar="P",
        parser=option_values.number(0, 1),
        help="Pixels whose class has a lower probability become void (255) in masks and colours.",
    ),
]
Palette = Annotated[
    str,
    typer.Option(
        envvar="FCN_PALETTE",
        metavar="NAME",
        autocompletion=option_values.complete_palettes,
        help="Class colours: hub (as on the PyTorch Hub page), voc, or a JSON file of [r, g, b] triples.",
    ),
]
KeepExtension = Annotated[
    bool,
    typer.Option(
        "--keep-extension", envvar="FCN_KEEP_EXTENSION", help="Name outputs cat.jpg.png instead of cat.png."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Redo finished images; allow changed settings.")]
RetryFailed = Annotated[
    bool,
    typer.Option("--retry-failed", help="Also retry unchanged images that failed because of their content."),
]
Prune = Annotated[
    PruneMode | None,
    typer.Option(
        "--prune",
        metavar="[=force]",
        help="Remove the outputs and records of photos that no longer exist in the input directories. "
        "Refused if a directory has no photo or more than half of the records would go, as with an unmounted "
        "disk; --prune=force removes them anyway.",
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
        help="Maximum time to decode a photo; it fails after that.",
    ),
]
Wait = Annotated[
    float,
    typer.Option(
        envvar="FCN_WAIT",
        metavar="SECONDS",
        parser=option_values.number(0),
        help="Maximum time to wait for another run in the output directory; then exit with 4.",
    ),
]
LogFile = Annotated[
    Path | None,
    typer.Option(
        envvar="FCN_LOG_FILE", metavar="FILE", help="Append the messages of -v to this file, also with -q."
    ),
]
FailFast = Annotated[bool, typer.Option("--fail-fast", help="Stop at the first failed image.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and write nothing.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print each image's record on stdout as a line of JSON.")
]
FiguresAsJson = Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", callback=option_values.not_both, help="Print only errors on stderr.")
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        callback=option_values.not_both,
        help="Print details on stderr: one line per image.",
    ),
]
