"""Every argument and option of every command, in the groups that ``--help`` shows.

The first paragraph of a help text is what ``--help`` prints; docs/options.md has all of it.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..common import limits
from ..common.wording import alternatives
from ..evaluation.choices import Orientation, Protocol, TruthColors
from ..models.registry import BACKBONES
from . import values

INPUT = "Input"
OUTPUT = "Output"
MODEL = "Model"
QUALITY = "Quality"
PERFORMANCE = "Performance"
RESUMING = "Resuming"
RUNNING = "Running"
LIMITS = "Limits"
MESSAGES = "Messages"
SELECTION = "Selection"
GROUPS = (INPUT, OUTPUT, SELECTION, MODEL, QUALITY, PERFORMANCE, RESUMING, RUNNING, LIMITS, MESSAGES)
"""In the order of ``--help``."""


def _option(group: str, *names: str, line: str, more: str = "", **rest: Any) -> Any:
    return typer.Option(*names, help=f"{line}\n\n{more}" if more else line, rich_help_panel=group, **rest)


# Input

Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT...",
        help="Image files, directories, quoted globs, URLs; '-' is one image on stdin.\n\nDirectories "
        "are searched recursively. s3:// and gs:// URLs may be files, directories or patterns, "
        "https:// URLs files.",
    ),
]
FilesFrom = Annotated[
    str | None,
    _option(
        INPUT,
        line="Read paths or URLs from FILE, one a line; '-' is stdin.",
        metavar="FILE",
        callback=values.not_empty,
        parser=values.local,
    ),
]
Null = Annotated[
    bool,
    _option(INPUT, "--null", "-0", line="The list is separated by NUL bytes (find -print0)."),
]
Include = Annotated[
    list[str] | None,
    _option(
        INPUT,
        line="Only process paths matching GLOB; repeatable.",
        more="Of the images found by searching, only those whose path below the directory matches the "
        "pattern. * does not match /, ** does: '**/*.jpg'.",
        metavar="GLOB",
    ),
]
Exclude = Annotated[
    list[str] | None,
    _option(
        INPUT,
        line="Skip paths matching GLOB; repeatable, wins.",
        more="Also skips what --include matches: 'raw/**' skips everything below raw.",
        metavar="GLOB",
    ),
]
IgnoreCase = Annotated[
    bool, _option(INPUT, "--ignore-case", line="--include and --exclude ignore upper and lower case.")
]
Root = Annotated[
    str | None,
    _option(
        INPUT,
        line="Name outputs of listed files relative to DIR.",
        more="DIR may be a URL.",
        callback=values.not_empty,
        metavar="DIR",
        envvar="FCN_ROOT",
        show_default="current directory",
    ),
]


class Alpha(StrEnum):
    """The values of ``--alpha``."""

    USE = "use"
    IGNORE = "ignore"


Stretch = Annotated[
    bool,
    _option(
        INPUT,
        "--stretch",
        line="Brighten dark samples of more than 8 bits.",
        more="Samples are scaled from their 2nd to their 98th percentile, for example 12 bits in a "
        "16-bit file. For PNG, PGM and TIFF of 16 or 32 bits and the like; samples of 8 bits stay "
        "as they are.",
        envvar="FCN_STRETCH",
    ),
]
AlphaOption = Annotated[
    Alpha | None,
    _option(
        INPUT,
        line="What to do with a fourth band.",
        more="use: put the image on white by it. ignore: leave it out, for example where it is near "
        "infrared.",
        envvar="FCN_ALPHA",
        metavar="use|ignore",
        parser=values.choice(Alpha),
        autocompletion=values.complete(*Alpha),
        show_default="as the file says",
    ),
]

# Output

Output = Annotated[
    str,
    _option(
        OUTPUT,
        "--output",
        "-o",
        line="Output directory or URL; x.png or '-': one PNG.",
        more="A URL is s3://BUCKET/NAME or gs://BUCKET/NAME. One image becomes the file x.png, or with '-' "
        "a PNG on stdout; x.png/ is a directory.",
        metavar="DIR",
        envvar="FCN_OUTPUT",
        callback=values.output_place,
    ),
]
Write = Annotated[
    Any,
    _option(
        OUTPUT,
        line="masks, color, overlay, cutout, geotiff, logits …",
        more="The output types to write, separated by commas; confidence is one more.",
        envvar="FCN_WRITE",
        metavar="LIST",
        parser=values.output_types,
        autocompletion=values.complete_output_types,
        show_default="masks,color; masks with -o -",
    ),
]
Palette = Annotated[
    str,
    _option(
        OUTPUT,
        line="Class colours: hub, voc, bright, or a JSON file.",
        more="hub: as on the PyTorch Hub page. bright: easy to tell apart, also for colour-blind "
        "people. A file has [r, g, b] triples.",
        envvar="FCN_PALETTE",
        metavar="NAME",
        parser=values.palette,
        autocompletion=values.complete_palettes,
    ),
]
Opacity = Annotated[
    float,
    _option(
        OUTPUT,
        line="Opacity of the colours in overlays, 0 to 1.",
        envvar="FCN_OPACITY",
        metavar="P",
        parser=values.number(0, 1),
    ),
]
Legend = Annotated[
    bool,
    _option(OUTPUT, "--legend", line="Add the names of the classes below overlays.", envvar="FCN_LEGEND"),
]
Cutout = Annotated[
    Any,
    _option(
        OUTPUT,
        line="Also write cutouts, with these classes: person,dog.",
        more="By name or index, separated by commas; all: all but the background, as with --write cutout.",
        envvar="FCN_CUTOUT",
        metavar="LIST|all",
        parser=values.classes,
    ),
]
Crop = Annotated[
    Any,
    _option(
        OUTPUT,
        "--crop",
        line="Also write cutouts, cropped to the classes.",
        more="--crop=16 leaves 16 pixels around them. An image without the classes is not cropped.",
        envvar="FCN_CROP",
        metavar="[=MARGIN]",
        parser=values.whole(0, limits.LONGEST_SIDE, word="none"),
    ),
]
Background = Annotated[
    Any,
    _option(
        OUTPUT,
        line="Also write cutouts, on white or #rrggbb.",
        more="Instead of transparent; any colour that CSS names.",
        envvar="FCN_BACKGROUND",
        metavar="COLOR",
        parser=values.color,
    ),
]
KeepExtension = Annotated[
    bool,
    _option(
        OUTPUT,
        "--keep-extension",
        line="Name outputs cat.jpg.png instead of cat.png.",
        envvar="FCN_KEEP_EXTENSION",
    ),
]
Report = Annotated[
    bool,
    _option(
        OUTPUT,
        "--report",
        line="Write report.html at the end; see fcn report.",
        more="A page to look at all images and masks.",
        envvar="FCN_REPORT",
    ),
]

# Model

BackboneOption = Annotated[
    str,
    _option(
        MODEL,
        line=f"{alternatives(BACKBONES)} (a preview).",
        more="efficientnet_lite0 is a small bundled preview network for trying the tool; it confuses "
        "classes, so use a ResNet for real work.",
        envvar="FCN_BACKBONE",
        metavar="NAME",
        parser=values.backbone(),
        autocompletion=values.complete(*BACKBONES),
    ),
]
Weights = Annotated[
    str | None,
    _option(
        MODEL,
        line="Your own checkpoint, a path or URL.",
        more="Instead of the official weights.",
        metavar="FILE",
        envvar="FCN_WEIGHTS",
    ),
]
ClassNames = Annotated[
    str | None,
    _option(
        MODEL,
        line="Its class names, one a line; or voc.",
        more="voc means the 21 classes of Pascal VOC.",
        metavar="FILE",
        envvar="FCN_CLASS_NAMES",
        parser=values.class_names,
    ),
]
NetworkCard = Annotated[
    str | None,
    _option(
        MODEL,
        line="Its card: classes, background, mean, size.",
        more="A TOML file; by default the one beside the checkpoint, mine.toml for mine.pth.",
        metavar="FILE",
        envvar="FCN_NETWORK_CARD",
        parser=values.local,
    ),
]
Offline = Annotated[bool, _option(MODEL, "--offline", line="Never download weights.", envvar="FCN_OFFLINE")]

# Quality

Resize = Annotated[
    Any,
    _option(
        QUALITY,
        line="Short side of the network's input, in pixels.",
        more="none: the image's own size.",
        envvar="FCN_RESIZE",
        metavar="N|none",
        parser=values.short_side,
        autocompletion=values.complete("none", "520"),
        show_default="520; with --tile none",
    ),
]
Tile = Annotated[
    Any,
    _option(
        QUALITY,
        line="Feed large images in overlapping tiles.",
        more="Of N pixels a side, rounded up to a multiple of the network's stride, and blended.",
        envvar="FCN_TILE",
        metavar="N",
        parser=values.whole(1, limits.LONGEST_SIDE, word="none"),
        autocompletion=values.complete("520"),
        show_default="off",
    ),
]
Overlap = Annotated[
    Any,
    _option(
        QUALITY,
        line="Pixels that neighbouring tiles share.",
        more="Rounded up like the tile; at most half of it.",
        envvar="FCN_OVERLAP",
        metavar="N",
        parser=values.whole(0, limits.LONGEST_SIDE, word="auto"),
        show_default="tile / 4",
    ),
]
Scales = Annotated[
    Any,
    _option(
        QUALITY,
        line="Average over input sizes: 0.75,1,1.25.",
        more="Factors of the network's input size from 0.25 to 4, separated by commas.",
        envvar="FCN_SCALES",
        metavar="LIST",
        parser=values.scales,
    ),
]
Flip = Annotated[
    bool,
    _option(
        QUALITY,
        "--flip",
        line="Average over the mirror image; twice the time.",
        envvar="FCN_FLIP",
    ),
]
MinConfidence = Annotated[
    Any,
    _option(
        QUALITY,
        line="Less probable pixels become void (255).",
        more="In masks and colours; P is a probability. By class: cat=0.7,0.5, where 0.5 is for all others.",
        envvar="FCN_MIN_CONFIDENCE",
        metavar="P",
        parser=values.min_confidence,
    ),
]
Map = Annotated[
    str | None,
    _option(
        QUALITY,
        "--map",
        line="Merge and renumber classes: person=1,cat+dog=2,*=0.",
        more="Names or indices of the network's classes, and the index (255: void) that they become. * is "
        "every other class; without it they keep their index. pet:cat+dog=2 gives a new name. A JSON file "
        'has the rules as {"pet:cat+dog": 2}.',
        envvar="FCN_MAP",
        metavar="MAP",
    ),
]
MinRegion = Annotated[
    int,
    _option(
        QUALITY,
        line="Merge regions of fewer than N pixels.",
        more="Connected pixels of one class (by their sides) take the class of the largest region beside "
        "them, as gdal_sieve does. 0: none.",
        envvar="FCN_MIN_REGION",
        metavar="N",
        parser=values.whole(0, limits.MOST_MASK_PIXELS),
    ),
]


class Precision(StrEnum):
    """The values of ``--precision``."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


PrecisionOption = Annotated[
    Precision,
    _option(
        QUALITY,
        line=f"{alternatives(Precision)}.",
        more="The network's arithmetic. auto: fp32 on a CPU; on a GPU bf16 from compute capability "
        "8.0, fp16 on 7.x, else fp32. fp32 on a GPU does not use TF32. bf16 on a CPU needs "
        "AVX512_BF16 or AMX, or --kernels torch.",
        envvar="FCN_PRECISION",
        metavar="NAME",
        parser=values.choice(Precision),
        autocompletion=values.complete(*Precision),
    ),
]

# Performance

Device = Annotated[
    str,
    _option(
        PERFORMANCE,
        line="auto, cpu, cuda or cuda:N.",
        more="auto: cuda if available.",
        envvar="FCN_DEVICE",
        metavar="NAME",
        parser=values.device,
        autocompletion=values.complete("auto", "cpu", "cuda"),
    ),
]
Threads = Annotated[
    Any,
    _option(
        PERFORMANCE,
        line="CPU threads of the network.",
        more="auto: as many as CPU affinity and cgroup quota allow.",
        envvar="FCN_THREADS",
        metavar="N",
        parser=values.whole(1, limits.MOST_THREADS, word="auto"),
        autocompletion=values.complete("auto"),
    ),
]
BatchSize = Annotated[
    Any,
    _option(
        PERFORMANCE,
        "--batch-size",
        "-b",
        line="Images of one shape per forward pass.",
        more="auto: 1 on a CPU, up to 16 on a GPU.",
        envvar="FCN_BATCH_SIZE",
        metavar="N",
        parser=values.whole(1, limits.MOST_IN_A_BATCH, word="auto"),
        autocompletion=values.complete("auto"),
    ),
]
Workers = Annotated[
    Any,
    _option(
        PERFORMANCE,
        "--workers",
        "-j",
        line="Decoding processes; 0: none.",
        more="auto: one per CPU, at most 16. 0: decode in the main process.",
        envvar="FCN_WORKERS",
        metavar="N",
        parser=values.whole(0, limits.MOST_WORKERS, word="auto"),
        autocompletion=values.complete("auto"),
    ),
]


class Kernels(StrEnum):
    """The values of ``--kernels``."""

    AUTO = "auto"
    FAST = "fast"
    TORCH = "torch"


KernelsOption = Annotated[
    Kernels,
    _option(
        PERFORMANCE,
        line="Who computes on a CPU: auto, fast, torch.",
        more="fast: our own kernels (in bf16 with AMX, the ResNets' only); torch: PyTorch's; auto: as "
        "fast where ours were measured to be faster (with AVX2 or AVX-512), else as torch.",
        envvar="FCN_KERNELS",
        metavar="NAME",
        parser=values.choice(Kernels),
        autocompletion=values.complete(*Kernels),
    ),
]

# Resuming


class PruneMode(StrEnum):
    """The values of ``--prune``; without a value it means `CAREFUL`."""

    CAREFUL = "careful"
    FORCE = "force"


Overwrite = Annotated[
    bool,
    _option(RESUMING, "--overwrite", line="Redo what is done; allow changed settings."),
]
RetryFailed = Annotated[
    bool,
    _option(
        RESUMING,
        "--retry-failed",
        line="Retry every image that failed before.",
        more="Also unchanged ones that failed because of their content; the others are always retried.",
    ),
]
Prune = Annotated[
    PruneMode | None,
    _option(
        RESUMING,
        "--prune",
        line="Remove outputs of images that are gone.",
        more="And their records: of images that no longer exist in the input directories. Refused if a "
        "directory has no image or more than half of the records would go, as with an unmounted "
        "disk; --prune=force removes them anyway.",
        metavar="[=force]",
        case_sensitive=False,
    ),
]

# Running

ShardOption = Annotated[
    Any,
    _option(
        RUNNING,
        "--shard",
        line="Process part I of N; the last to end merges.",
        more="I counts from 1. Other processes take the other parts, into the same --output.",
        envvar="FCN_SHARD",
        metavar="I/N",
        parser=values.shard,
    ),
]
RayOption = Annotated[
    Any,
    _option(
        RUNNING,
        "--ray",
        line="Run on Ray.",
        more="local uses all GPUs, or CPUs, of this machine; HOST:PORT is the head of a cluster that "
        "this machine belongs to.",
        envvar="FCN_RAY",
        metavar="local|HOST:PORT",
        parser=values.ray_address,
    ),
]
Watch = Annotated[
    bool,
    _option(
        RUNNING,
        "--watch",
        line="Segment images as they arrive, until Ctrl-C.",
        more="Those that are there come first. SIGTERM ends it, too. An image is taken when it has not "
        "changed for 2 s; one that is replaced is done again.",
    ),
]
Wait = Annotated[
    float,
    _option(
        RUNNING,
        line="Wait for another run in DIR, else exit with 4.",
        more="At most so long.",
        envvar="FCN_WAIT",
        metavar="SECONDS",
        parser=values.number(0, limits.MOST_SECONDS),
    ),
]
FailFast = Annotated[bool, _option(RUNNING, "--fail-fast", line="Stop at the first failed image.")]
DryRun = Annotated[bool, _option(RUNNING, "--dry-run", line="Print the plan and write nothing.")]

# Limits

MaxImagePixels = Annotated[
    int | None,
    _option(
        LIMITS,
        line="Refuse larger images.",
        more="By their header, before they are decoded.",
        envvar="FCN_MAX_IMAGE_PIXELS",
        metavar="N",
        parser=values.whole(1, limits.MOST_PIXELS),
        show_default="178956970, Pillow's error limit",
    ),
]
MaxMaskPixels = Annotated[
    int,
    _option(
        LIMITS,
        "--max-image-pixels",
        line="Refuse larger masks and images.",
        more="By their header, before they are decoded; never less than 500000000.",
        envvar="FCN_MAX_IMAGE_PIXELS",
        metavar="N",
        parser=values.whole(1, limits.MOST_PIXELS),
    ),
]
DecodeTimeout = Annotated[
    float,
    _option(
        LIMITS,
        line="Time to decode one image.",
        more="It fails after that.",
        envvar="FCN_DECODE_TIMEOUT",
        metavar="SECONDS",
        parser=values.number(0.1, limits.MOST_SECONDS),
    ),
]

# Messages

AsJson = Annotated[
    bool,
    _option(
        MESSAGES,
        "--json",
        line="Print each image's record as a line of JSON.",
        more="On stdout, as images finish.",
    ),
]
FiguresAsJson = Annotated[bool, _option(MESSAGES, "--json", line="Print the figures as JSON.")]
LogFile = Annotated[
    Path | None,
    _option(
        MESSAGES,
        line="Append the messages of -v to FILE, also with -q.",
        envvar="FCN_LOG_FILE",
        metavar="FILE",
        parser=values.local_file,
    ),
]
Quiet = Annotated[
    bool, _option(MESSAGES, "--quiet", "-q", line="Print only errors on stderr.", callback=values.not_both)
]
Verbose = Annotated[
    bool,
    _option(
        MESSAGES,
        "--verbose",
        "-v",
        line="Print details on stderr: one line per image.",
        callback=values.not_both,
    ),
]

# Commands that read an output directory


class ExportFormat(StrEnum):
    """The values of ``--format``; a test holds them equal to the exporters' names."""

    COCO = "coco"
    VOC = "voc"
    YOLO = "yolo"
    LABEL_STUDIO = "labelstudio"
    MASKS = "masks"
    BINARY = "binary"
    GEOTIFF = "geotiff"


class OutputTypeName(StrEnum):
    """The values of ``--outputs``; a test holds them equal to those of ``--write``."""

    MASKS = "masks"
    COLOR = "color"
    OVERLAY = "overlay"
    CONFIDENCE = "confidence"
    CUTOUT = "cutout"
    GEOTIFF = "geotiff"
    LOGITS = "logits"


class RecordStatus(StrEnum):
    """The values of ``--status``."""

    OK = "ok"
    FAILED = "failed"
    GONE = "gone"


OutputDirectory = Annotated[
    Any,
    typer.Argument(
        metavar="OUT", parser=values.local_directory, help="The output directory of an fcn segment command."
    ),
]
MergedDirectory = Annotated[
    str,
    typer.Argument(
        metavar="OUT",
        callback=values.not_empty,
        help="The output directory of fcn segment commands with --shard, or its URL.",
    ),
]
SelectedClasses = Annotated[
    list[str] | None,
    _option(
        SELECTION,
        "--class",
        line="Only images that show this class; repeatable.",
        more="By name or index. Several: images that show all of them.",
        metavar="NAME",
    ),
]
Minimum = Annotated[
    Any,
    _option(
        SELECTION,
        "--min",
        line="Least share of the pixels: 5% or 0.05.",
        more="Of each class that is asked for. With 0, also images without the class.",
        metavar="SHARE",
        parser=values.share,
    ),
]
Maximum = Annotated[
    Any,
    _option(
        SELECTION,
        "--max",
        line="Largest share of the pixels.",
        more="Of each class that is asked for.",
        metavar="SHARE",
        parser=values.share,
    ),
]
StatusOption = Annotated[
    Any,
    _option(
        SELECTION,
        "--status",
        line="ok, failed or gone.",
        more="Images with a mask (ok), without one (failed), or with one and gone themselves (gone).",
        metavar="STATUS",
        parser=values.choice(RecordStatus),
        autocompletion=values.complete(*RecordStatus),
    ),
]
MaxAge = Annotated[
    Any,
    _option(
        SELECTION,
        "--max-age",
        line="Exit with 1 when no run ended in AGE: 26h, 2d.",
        metavar="AGE",
        parser=values.age,
    ),
]
OutputsOption = Annotated[
    Any,
    _option(
        OUTPUT,
        "--outputs",
        line="Print the paths of outputs of this type instead.",
        more=f"The type is {alternatives(OutputTypeName)}; a cutout only where something is kept.",
        metavar="TYPE",
        parser=values.choice(OutputTypeName),
        autocompletion=values.complete(*OutputTypeName),
    ),
]
NullOutput = Annotated[
    bool, _option(OUTPUT, "--null", "-0", line="End each path with a NUL byte, for xargs -0.")
]
FormatOption = Annotated[
    Any,
    _option(
        OUTPUT,
        "--format",
        line="The format: coco, voc or yolo.",
        metavar="FORMAT",
        parser=values.choice(ExportFormat),
        autocompletion=values.complete(*ExportFormat),
    ),
]
ExportDestination = Annotated[
    Any,
    _option(
        OUTPUT,
        "--output",
        "-o",
        line="The file (coco) or new directory to write.",
        metavar="DEST",
        callback=values.export_path,
    ),
]
# Not by variables: what FCN_MAP has done to the masks is done.
ExportMap = Annotated[
    str | None,
    _option(
        SELECTION,
        "--map",
        line="Merge and renumber classes: person=1,cat+dog=2,*=0.",
        more="As for fcn segment, of the classes that the masks have.",
        metavar="MAP",
    ),
]
ExportMinRegion = Annotated[
    int,
    _option(
        SELECTION,
        line="Merge regions of fewer than N pixels.",
        more="As for fcn segment, after --map.",
        metavar="N",
        parser=values.whole(0, limits.MOST_MASK_PIXELS),
    ),
]
Parts = Annotated[
    bool, _option(OUTPUT, "--parts", line="coco: one annotation for each connected part, not each class.")
]
Polygons = Annotated[
    bool,
    _option(
        OUTPUT,
        "--polygons",
        line="coco: parts as polygons.",
        more="With --parts. A part with a hole has run lengths: COCO's polygons have no holes.",
    ),
]
ReplaceExport = Annotated[bool, _option(OUTPUT, "--overwrite", line="Replace an earlier export at DEST.")]

# fcn evaluate

Images = Annotated[str, typer.Argument(metavar="IMAGES", help="A directory of images.")]
Truth = Annotated[
    str,
    typer.Argument(
        metavar="TRUTH",
        parser=values.local,
        help="Label maps, a Pascal VOC root, or a COCO instances_*.json.\n\nA directory of label maps "
        "with the images' names (255 is void), a Pascal VOC root (VOCdevkit/VOC2012, or what CVAT exports as "
        "a segmentation mask), or a COCO instances_*.json. A label map must have its image's size.",
    ),
]
Predictions = Annotated[
    str | None,
    _option(
        INPUT,
        line="Measure these masks instead of a network.",
        more="An output directory, or index PNGs.",
        metavar="DIR",
        parser=values.local,
    ),
]
Split = Annotated[
    str | None,
    _option(
        INPUT,
        line="The split of a Pascal VOC root.",
        metavar="NAME",
        autocompletion=values.complete("train", "val", "trainval", "test"),
        show_default="val, or the only one",
    ),
]
TruthSuffix = Annotated[
    str,
    _option(
        INPUT,
        line="What label maps have behind an image's name: _mask.",
        more="cat_mask.png (or another lossless format) then belongs to cat.jpg; _mask.tif means this one "
        "format.",
        metavar="TEXT",
        show_default="nothing",
    ),
]
TruthMap = Annotated[
    Any,
    _option(
        INPUT,
        line="What the truth's values are: '1=person,2+3=cat,*=255'.",
        more="On the left values of label maps, labels of a labelmap.txt or COCO's categories; on the right "
        "classes by name or index, or void. * is every other value but 255. Without it, other values stay "
        "what they are.",
        metavar="MAP",
        parser=values.class_map,
    ),
]
IgnoreIndex = Annotated[
    list[int] | None,
    _option(
        INPUT,
        "--ignore-index",
        line="This value of the truth is void, too; repeatable.",
        more="As 255 is.",
        metavar="N",
        parser=values.whole(0, 65535),
    ),
]
LabelMapFile = Annotated[
    str | None,
    _option(
        INPUT,
        "--labelmap",
        line="Names and colours of the truth, as CVAT writes them.",
        more="Lines label:red,green,blue:parts:actions. A labelmap.txt in the truth's directory is found.",
        metavar="FILE",
        parser=values.local,
    ),
]
TruthColorsOption = Annotated[
    TruthColors | None,
    _option(
        INPUT,
        line="What the truth's pixels are: voc or index.",
        more="voc: colours of Pascal VOC's palette. index: class indices, even if the truth looks like "
        "a black-and-white mask, or a labelmap.txt is there.",
        metavar="NAME",
        parser=values.choice(TruthColors),
        autocompletion=values.complete(*TruthColors),
        show_default="class indices",
    ),
]
ProtocolOption = Annotated[
    Protocol,
    _option(
        QUALITY,
        line="Size to compare at: original or torchvision.",
        more="original: the image's own size. torchvision: the network's input size, as torchvision's "
        "reference script does.",
        metavar="NAME",
        parser=values.choice(Protocol),
        autocompletion=values.complete(*Protocol),
    ),
]
OrientationOption = Annotated[
    Orientation,
    _option(
        QUALITY,
        line="EXIF: upright, stored or auto.",
        more="How to compare images with an EXIF orientation. auto: the orientation that has the "
        "truth's size; if both have it, stored for COCO and --protocol torchvision, else upright.",
        metavar="NAME",
        parser=values.choice(Orientation),
        autocompletion=values.complete(*Orientation),
    ),
]
EvaluationReport = Annotated[
    str | None,
    _option(
        OUTPUT,
        "--report",
        line="Write DIR/report.html and DIR/evaluation.json.",
        more="Per-class bars, the confusion matrix, and the images, worst first.",
        metavar="DIR",
        callback=values.no_file_or_none,
        parser=values.local,
    ),
]

# fcn compare

DirectoryA = Annotated[
    str,
    typer.Argument(
        metavar="DIR_A", parser=values.local, help="An output directory, or a directory of index PNGs."
    ),
]
DirectoryB = Annotated[
    str, typer.Argument(metavar="DIR_B", parser=values.local, help="The directory to compare it with.")
]

# fcn bench and fcn weights

Rounds = Annotated[
    int,
    _option(RUNNING, line="Timed rounds.", metavar="N", parser=values.whole(1, limits.MOST_ROUNDS)),
]
Size = Annotated[
    Any,
    _option(
        QUALITY,
        line="Size of the image; it is not resized.",
        metavar="WxH",
        parser=values.size,
        show_default="693x520; with --tile 2000x1500",
    ),
]
Backbones = Annotated[
    list[str],
    typer.Argument(
        metavar="BACKBONE...",
        parser=values.backbone(values.ALL),
        autocompletion=values.complete(*BACKBONES, values.ALL),
        help=f"One or more of {', '.join(BACKBONES)}, or all.",
    ),
]
CheckpointFile = Annotated[
    str, typer.Argument(metavar="FILE", parser=values.local, help="A checkpoint, as for --weights.")
]
WeightsDirectory = Annotated[
    str | None,
    _option(
        OUTPUT,
        "--to",
        line="Store them in DIR.",
        more="To copy to another machine's FCN_WEIGHTS_DIR.",
        metavar="DIR",
        parser=values.local,
    ),
]
