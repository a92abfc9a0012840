"""The options of the network: which one, with which weights, how photos are decoded, how it is run."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from ..common import limits
from ..common.wording import alternatives
from ..models.registry import BACKBONES
from . import option_values


class Precision(StrEnum):
    """The values of ``--precision``."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class Alpha(StrEnum):
    """The values of ``--alpha``."""

    USE = "use"
    IGNORE = "ignore"


class Kernels(StrEnum):
    """The values of ``--kernels``."""

    AUTO = "auto"
    FAST = "fast"
    TORCH = "torch"


BackboneOption = Annotated[
    str,
    typer.Option(
        envvar="FCN_BACKBONE",
        metavar="NAME",
        parser=option_values.one_of(BACKBONES),
        autocompletion=option_values.complete(*BACKBONES),
        help=f"The network: {alternatives(BACKBONES)}. mobilenet_v2 is a small bundled preview for trying "
        "the tool; it confuses classes, so use a ResNet for real work.",
    ),
]
Backbones = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[BACKBONE]...",
        parser=option_values.one_of(BACKBONES),
        autocompletion=option_values.complete(*BACKBONES),
        help=f"One or more of {', '.join(BACKBONES)}; all of them if none is given.",
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        envvar="FCN_WEIGHTS",
        help="Your own checkpoint instead of the official weights; a path or URL.",
    ),
]
ClassNames = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        envvar="FCN_CLASS_NAMES",
        parser=option_values.class_names,
        help="The class names of your checkpoint, one per line; 'voc' means the 21 of Pascal VOC.",
    ),
]
Offline = Annotated[bool, typer.Option("--offline", envvar="FCN_OFFLINE", help="Never download weights.")]
Device = Annotated[
    str,
    typer.Option(
        envvar="FCN_DEVICE",
        metavar="NAME",
        parser=option_values.device,
        autocompletion=option_values.complete("auto", "cpu", "cuda"),
        help="Device of the network: auto, cpu, cuda or cuda:N. auto: cuda if available.",
    ),
]
Threads = Annotated[
    Any,
    typer.Option(
        envvar="FCN_THREADS",
        metavar="N",
        parser=option_values.whole(1, limits.MOST_THREADS, word="auto"),
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
        help="What computes on a CPU. fast: our own kernels (in bf16 with AMX, the ResNets' only); "
        "torch: PyTorch's; auto: as fast where ours were measured to be faster (with AVX2 or AVX-512), else "
        "as torch.",
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
        "from compute capability 8.0, fp16 on 7.x, else fp32. fp32 on a GPU does not use TF32. bf16 on a CPU "
        "needs AVX512_BF16 or AMX, or --kernels torch.",
    ),
]
BatchSize = Annotated[
    Any,
    typer.Option(
        "--batch-size",
        "-b",
        envvar="FCN_BATCH_SIZE",
        metavar="N",
        parser=option_values.whole(1, limits.MOST_IN_A_BATCH, word="auto"),
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
        parser=option_values.whole(0, limits.MOST_WORKERS, word="auto"),
        autocompletion=option_values.complete("auto"),
        help="Decoding processes; auto: one per CPU, at most 16; 0: decode in the main process.",
    ),
]
Size = Annotated[
    Any,
    typer.Option(
        metavar="WxH",
        parser=option_values.size,
        show_default="693x520; with --tile 2000x1500",
        help="Size of the network's input in pixels; with --tile, of the photo.",
    ),
]
Resize = Annotated[
    Any,
    typer.Option(
        envvar="FCN_RESIZE",
        metavar="N|none",
        parser=option_values.short_side,
        autocompletion=option_values.complete("none", "520"),
        show_default="520; with --tile none",
        help="Short side of the network's input in pixels; none: the photo's own size.",
    ),
]
Tile = Annotated[
    Any,
    typer.Option(
        envvar="FCN_TILE",
        metavar="N",
        parser=option_values.whole(1, limits.LONGEST_SIDE, word="none"),
        autocompletion=option_values.complete("520"),
        show_default="the whole photo at once",
        help="For large photos: feed the network overlapping tiles of N pixels a side, rounded up to a "
        "multiple of its stride, and blend them.",
    ),
]
Overlap = Annotated[
    Any,
    typer.Option(
        envvar="FCN_OVERLAP",
        metavar="N",
        parser=option_values.whole(0, limits.LONGEST_SIDE, word="auto"),
        show_default="a quarter of the tile",
        help="Pixels that neighbouring tiles share, rounded up like the tile; at most half of it.",
    ),
]
Scales = Annotated[
    Any,
    typer.Option(
        envvar="FCN_SCALES",
        metavar="LIST",
        parser=option_values.scales,
        help="Average the predictions for the network's input at these sizes: factors from 0.25 to 4, "
        "separated by commas, as 0.75,1,1.25.",
    ),
]
Flip = Annotated[
    bool,
    typer.Option(
        "--flip",
        envvar="FCN_FLIP",
        help="Average the predictions for the photo and for its mirror image; takes twice the time.",
    ),
]
Stretch = Annotated[
    bool,
    typer.Option(
        "--stretch",
        envvar="FCN_STRETCH",
        help="Scale samples of more than 8 bits from their 2nd to their 98th percentile, for example 12 bits "
        "in a 16-bit file. For PNG, PGM and TIFF of 16 or 32 bits and the like; samples of 8 bits stay as "
        "they are.",
    ),
]
AlphaOption = Annotated[
    Alpha | None,
    typer.Option(
        envvar="FCN_ALPHA",
        metavar="use|ignore",
        parser=option_values.choice(Alpha),
        autocompletion=option_values.complete(*Alpha),
        show_default="as the file says",
        help="Put the image on white by its fourth band (use), or leave that band out (ignore), for example "
        "where it is near infrared.",
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
MaxImagePixels = Annotated[
    int | None,
    typer.Option(
        envvar="FCN_MAX_IMAGE_PIXELS",
        metavar="N",
        parser=option_values.whole(1, limits.MOST_PIXELS),
        show_default="178956970, Pillow's error limit",
        help="Refuse larger photos before decoding them.",
    ),
]
MaxMaskPixels = Annotated[
    int,
    typer.Option(
        "--max-image-pixels",
        envvar="FCN_MAX_IMAGE_PIXELS",
        metavar="N",
        parser=option_values.whole(1, limits.MOST_PIXELS),
        help="Refuse larger masks and images before decoding them; never less than 500000000.",
    ),
]
DecodeTimeout = Annotated[
    float,
    typer.Option(
        envvar="FCN_DECODE_TIMEOUT",
        metavar="SECONDS",
        parser=option_values.number(0.1, limits.MOST_SECONDS),
        help="Maximum time to decode a photo; it fails after that.",
    ),
]


def short_side(context: typer.Context, resize: int | None, tile: int | None) -> int | None:
    """Return the value of ``--resize``; where it is not given, tiles have the photo's own scale."""
    source = context.get_parameter_source("resize")
    is_given = source is not None and source.name != "DEFAULT"
    return resize if is_given or tile is None else None
