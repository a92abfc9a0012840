"""The command line's options, each once: a command that takes one names its type."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

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


class Protocol(StrEnum):
    """What ``--protocol`` takes; `evaluate.PROTOCOLS` has what they mean."""

    ORIGINAL = "original"
    TORCHVISION = "torchvision"


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


def _size(text: str) -> tuple[int, int]:
    parts = text.split("x")
    if len(parts) != 2 or not all(
        part.isascii() and part.isdigit() and 1 <= int(part) <= 16384 for part in parts
    ):
        raise typer.BadParameter("takes WIDTHxHEIGHT in pixels, as 693x520")
    return int(parts[0]), int(parts[1])


def _kinds(text: str) -> tuple[str, ...]:
    from .outputs import WRITERS

    asked = {part.strip() for part in text.split(",")} - {""}
    if not asked or (unknown := asked - set(WRITERS)):
        named = f"{', '.join(sorted(unknown))}: " if asked else ""
        raise typer.BadParameter(f"{named}takes a comma-separated list of {', '.join(WRITERS)}")
    return tuple(kind for kind in WRITERS if kind in asked)


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
        help="Name outputs of listed files relative to this folder  [default: current folder]",
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
        help="The network. mobilenet_v2 is a small bundled preview for trying the tool: it mixes "
        "classes up; the ResNets are for real work.",
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
Device = Annotated[str, typer.Option(envvar="FCN_DEVICE", metavar="NAME", help="auto, cpu, cuda, cuda:N.")]
Threads = Annotated[
    Any,
    typer.Option(
        envvar="FCN_THREADS",
        metavar="N",
        parser=_or_auto,
        help="CPU threads of the network; auto: what affinity and cgroup allow.",
    ),
]
KernelsOption = Annotated[
    Kernels,
    typer.Option(envvar="FCN_KERNELS", help="fast: our own on a CPU, in fp32; torch: plain torchvision's."),
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        envvar="FCN_PRECISION",
        help="Arithmetic of the network; auto: fp32 on a CPU, bf16 on a GPU that has it. "
        "fp32 on a GPU is without TF32.",
    ),
]
BatchSize = Annotated[
    Any,
    typer.Option(
        "--batch-size",
        "-b",
        envvar="FCN_BATCH_SIZE",
        metavar="N",
        parser=_or_auto,
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
        parser=_workers,
        help="Decoding processes; auto: one per CPU, at most 16. 0 decodes in the main process.",
    ),
]
Size = Annotated[
    Any,
    typer.Option(metavar="WxH", parser=_size, help="Size in pixels of what the network is fed."),
]
Rounds = Annotated[int, typer.Option(min=1, metavar="N", help="How often each is timed.")]
Resize = Annotated[
    Any,
    typer.Option(
        envvar="FCN_RESIZE",
        metavar="N|none",
        parser=_resize,
        help="Short side in pixels fed to the network; none: the photo's own size.",
    ),
]
Write = Annotated[
    Any,
    typer.Option(
        envvar="FCN_WRITE",
        metavar="LIST",
        parser=_kinds,
        help="What to write, of: masks,color,overlay,confidence.",
    ),
]
MinConfidence = Annotated[
    float,
    typer.Option(
        envvar="FCN_MIN_CONFIDENCE",
        metavar="P",
        min=0.0,
        max=1.0,
        help="Pixels whose class has a smaller probability become void (255) in masks and colours.",
    ),
]
Palette = Annotated[
    str,
    typer.Option(
        envvar="FCN_PALETTE",
        metavar="NAME",
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
MaxImagePixels = Annotated[
    int | None,
    typer.Option(
        envvar="FCN_MAX_IMAGE_PIXELS",
        metavar="N",
        min=1,
        help="Refuse larger photos before decoding them.  [default: 178956970, Pillow's error limit]",
    ),
]
DecodeTimeout = Annotated[
    float,
    typer.Option(
        envvar="FCN_DECODE_TIMEOUT", metavar="SECONDS", min=0.1, help="Give up on a photo after so long."
    ),
]
Wait = Annotated[
    float,
    typer.Option(
        envvar="FCN_WAIT",
        metavar="SECONDS",
        min=0.0,
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
Truth = Annotated[
    str,
    typer.Argument(
        metavar="TRUTH",
        help="A folder of index PNGs (255 is void) with the photos' names, a Pascal VOC root "
        "(VOCdevkit/VOC2012), or a COCO instances_*.json.",
    ),
]
Predictions = Annotated[
    str | None,
    typer.Option(
        metavar="DIR", help="Measure these masks (an output directory, or index PNGs) instead of a network."
    ),
]
Split = Annotated[
    str | None, typer.Option(metavar="NAME", help="Which split of a Pascal VOC root.  [default: val]")
]
ProtocolOption = Annotated[
    Protocol,
    typer.Option(
        help="Compare at the photo's own size (original), or at the network's input size, as torchvision's "
        "reference script does."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only errors on stderr.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="More on stderr.")]
