"""Every argument and option of every command, in the groups that ``--help`` shows.

The first paragraph of a help text is what ``--help`` prints; docs/options.md has all of it.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..common import limits, output_layout
from ..common.wording import alternatives
from ..evaluation import Orientation, Protocol, TruthColors
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
        help="Image files, directories, quoted globs, URLs; '-' is one image on stdin.\n\n"
        "Directories are searched recursively. s3:// and gs:// URLs may be files, directories or "
        "patterns, https:// URLs files.",
    ),
]
FilesFrom = Annotated[
    str | None,
    _option(
        INPUT,
        line="Read paths or URLs from FILE, one per line; '-' is stdin.",
        metavar="FILE",
        callback=values.not_empty,
        parser=values.local,
    ),
]
Null = Annotated[
    bool,
    _option(INPUT, "--null", "-0", line="The list is NUL-separated, as from find -print0."),
]
Include = Annotated[
    list[str] | None,
    _option(
        INPUT,
        line="Only process paths matching GLOB; repeatable.",
        more="Matched against the path below the directory. * stops at /, ** does not: '**/*.jpg'.",
        metavar="GLOB",
    ),
]
Exclude = Annotated[
    list[str] | None,
    _option(
        INPUT,
        line="Skip paths matching GLOB; repeatable.",
        more="Wins over --include: 'raw/**' skips everything below raw.",
        metavar="GLOB",
    ),
]
IgnoreCase = Annotated[bool, _option(INPUT, "--ignore-case", line="Ignore case in --include and --exclude.")]
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
        line="Brighten dark images of more than 8 bits.",
        more="Scales samples between their 2nd and 98th percentiles. 8-bit images are not changed.",
        envvar="FCN_STRETCH",
    ),
]
AlphaOption = Annotated[
    Alpha | None,
    _option(
        INPUT,
        line="Use a fourth band as alpha, or ignore it.",
        more="use puts the image on white; ignore drops the band, for example when it is near infrared.",
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
        line="Output directory or URL; x.png or '-' for one PNG.",
        more="URLs are s3://BUCKET/NAME or gs://BUCKET/NAME. x.png/ is a directory.",
        metavar="DIR",
        envvar="FCN_OUTPUT",
        callback=values.output_place,
    ),
]
Write = Annotated[
    Any,
    _option(
        OUTPUT,
        line=f"{', '.join(output_layout.output_type_names())}.",
        more="The output types to write, separated by commas.",
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
        more="hub is the PyTorch Hub page's palette; bright is easy to tell apart, also for "
        "colour-blind people. A file has [r, g, b] triples.",
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
    _option(OUTPUT, "--legend", line="Add a legend of class names below overlays.", envvar="FCN_LEGEND"),
]
Cutout = Annotated[
    Any,
    _option(
        OUTPUT,
        line="Also write cutouts of these classes: person,dog.",
        more="Names or indices; all means every class but the background.",
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
        line="Also write cutouts, cropped to their classes.",
        more="--crop=16 leaves a margin of 16 pixels. An image without these classes is not cropped.",
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
        more="Any CSS colour, instead of transparent.",
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
        line="Write an HTML report at the end; see fcn report.",
        envvar="FCN_REPORT",
    ),
]

# Model

BackboneOption = Annotated[
    str,
    _option(
        MODEL,
        line=f"{alternatives(BACKBONES)} (a preview).",
        more="The preview is small and bundled with fcn, but mixes classes up; use a ResNet for real work.",
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
        metavar="FILE",
        envvar="FCN_WEIGHTS",
    ),
]
ClassNames = Annotated[
    str | None,
    _option(
        MODEL,
        line="Its class names, one per line; or voc.",
        more="voc stands for the 21 classes of Pascal VOC.",
        metavar="FILE",
        envvar="FCN_CLASS_NAMES",
        parser=values.class_names,
    ),
]
NetworkCard = Annotated[
    str | None,
    _option(
        MODEL,
        line="Its card (TOML): classes, mean, input size.",
        more="Default: the file beside the checkpoint, mine.toml for mine.pth.",
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
        more="none keeps the image's own size.",
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
        line="Process large images in overlapping tiles.",
        more="N is the side in pixels, rounded up to a multiple of the network's stride. Tiles are blended.",
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
        line="Overlap of neighbouring tiles, in pixels.",
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
        more="Factors of the input size, from 0.25 to 4.",
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
        line="Average with the mirror image; twice the time.",
        envvar="FCN_FLIP",
    ),
]
MinConfidence = Annotated[
    Any,
    _option(
        QUALITY,
        line="Set pixels of lower confidence to 255 (ignore).",
        more="P is a probability, or one by class: cat=0.7,0.5 takes 0.7 for cat and 0.5 for the others.",
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
        more="Class names or indices, and their new index; 255 is the ignore label. * is every other "
        "class; without it they keep their index. pet:cat+dog=2 also gives a name. Or a JSON "
        'file: {"pet:cat+dog": 2}.',
        envvar="FCN_MAP",
        metavar="MAP",
    ),
]
MinRegion = Annotated[
    int,
    _option(
        QUALITY,
        line="Merge regions of fewer than N pixels.",
        more="They take the class of their largest neighbour, as with gdal_sieve. A region is made of "
        "pixels that share sides.",
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
        line=f"Arithmetic: {alternatives(Precision)}.",
        more="auto is fp32 on a CPU; on a GPU bf16 from compute capability 8.0, fp16 on 7.x, else "
        "fp32. fp32 on a GPU does not use TF32. bf16 on a CPU needs AVX512_BF16 or AMX, or "
        "--kernels torch.",
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
        more="auto uses a GPU if there is one.",
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
        line="CPU threads for the network.",
        more="auto follows CPU affinity and the cgroup quota.",
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
        line="Images per batch; all have the same shape.",
        more="auto is 1 on a CPU, up to 16 on a GPU.",
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
        line="Decoding processes; 0 for none.",
        more="auto is one per CPU, at most 16. With 0 the main process decodes.",
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
        line="CPU kernels: auto, fast or torch.",
        more="fast uses fcn's own kernels, torch PyTorch's. auto uses fcn's own where they were "
        "measured to be faster.",
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
    _option(RESUMING, "--overwrite", line="Redo finished images; allow changed settings."),
]
RetryFailed = Annotated[
    bool,
    _option(
        RESUMING,
        "--retry-failed",
        line="Retry all images that failed before.",
        more="Otherwise images that failed because of their content are retried only after they change.",
    ),
]
Prune = Annotated[
    PruneMode | None,
    _option(
        RESUMING,
        "--prune",
        line="Remove outputs of images that are gone.",
        more="Their records go, too. Refused when an input directory has no image or more than half of "
        "the records would go, as with an unmounted disk; --prune=force does it anyway.",
        metavar="[=force]",
        parser=values.choice(PruneMode),
    ),
]

# Running

ShardOption = Annotated[
    Any,
    _option(
        RUNNING,
        "--shard",
        line="Process shard I of N; the last to finish merges.",
        more="I counts from 1. Other processes take the other shards, with the same --output.",
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
        line="Run on Ray, on this machine or a cluster.",
        more="local uses all GPUs, or CPUs, of this machine; HOST:PORT is the head node of a cluster "
        "that this machine is a node of.",
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
        more="Existing images come first. An image is processed when it has not changed for 2 s, and "
        "again when it is replaced.",
    ),
]
Wait = Annotated[
    float,
    _option(
        RUNNING,
        line="How long to wait for another run; then exit 4.",
        envvar="FCN_WAIT",
        metavar="SECONDS",
        parser=values.number(0, limits.MOST_SECONDS),
    ),
]
FailFast = Annotated[bool, _option(RUNNING, "--fail-fast", line="Stop at the first image that fails.")]
DryRun = Annotated[bool, _option(RUNNING, "--dry-run", line="Print the plan and write nothing.")]

# Limits

MaxImagePixels = Annotated[
    int | None,
    _option(
        LIMITS,
        line="Refuse larger images.",
        more="Checked in the header, before decoding.",
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
        more="Never less than 500000000.",
        envvar="FCN_MAX_IMAGE_PIXELS",
        metavar="N",
        parser=values.whole(1, limits.MOST_PIXELS),
    ),
]
DecodeTimeout = Annotated[
    float,
    _option(
        LIMITS,
        line="Time limit for decoding one image.",
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
    ),
]
FiguresAsJson = Annotated[bool, _option(MESSAGES, "--json", line="Print the figures as JSON.")]
LogFile = Annotated[
    Path | None,
    _option(
        MESSAGES,
        line="Append all messages to FILE, as with -v.",
        envvar="FCN_LOG_FILE",
        metavar="FILE",
        parser=values.local_file,
    ),
]
Quiet = Annotated[
    bool, _option(MESSAGES, "--quiet", "-q", line="Print only errors.", callback=values.not_both)
]
Verbose = Annotated[
    bool,
    _option(
        MESSAGES,
        "--verbose",
        "-v",
        line="Print details, and where a bug in fcn happened.",
        more="fcn segment prints one line per image.",
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
    CUTOUT = "cutout"


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
    typer.Argument(metavar="OUT", parser=values.local_directory, help="An output directory of fcn segment."),
]
MergedDirectory = Annotated[
    str,
    typer.Argument(
        metavar="OUT",
        callback=values.not_empty,
        help="The output directory of a run in shards, or its URL.",
    ),
]
SelectedClasses = Annotated[
    list[str] | None,
    _option(
        SELECTION,
        "--class",
        line="Only images with this class; repeatable.",
        more="Name or index; several: images with all of them.",
        metavar="NAME",
    ),
]
Minimum = Annotated[
    Any,
    _option(
        SELECTION,
        "--min",
        line="Minimum share of the pixels: 5% or 0.05.",
        more="Of each --class. 0 includes images without the class.",
        metavar="SHARE",
        parser=values.share,
    ),
]
Maximum = Annotated[
    Any,
    _option(
        SELECTION,
        "--max",
        line="Maximum share of the pixels.",
        more="Of each --class.",
        metavar="SHARE",
        parser=values.share,
    ),
]
StatusOption = Annotated[
    Any,
    _option(
        SELECTION,
        "--status",
        line="Status of the image: ok, failed or gone.",
        more="gone: it has a mask, and the image itself was removed.",
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
        line="Exit 1 if no run has ended in the last AGE: 26h.",
        metavar="AGE",
        parser=values.age,
    ),
]
OutputsOption = Annotated[
    Any,
    _option(
        OUTPUT,
        "--outputs",
        line="Print paths of this output type instead.",
        more=f"{alternatives(OutputTypeName)}; a cutout only where something is kept.",
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
        line=f"Export format: {alternatives(ExportFormat)}.",
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
        line="File (coco) or new directory to write.",
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
        more="As for fcn segment.",
        metavar="MAP",
    ),
]
ExportMinRegion = Annotated[
    int,
    _option(
        SELECTION,
        line="Merge regions of fewer than N pixels.",
        more="After --map.",
        metavar="N",
        parser=values.whole(0, limits.MOST_MASK_PIXELS),
    ),
]
Parts = Annotated[
    bool,
    _option(
        OUTPUT,
        "--parts",
        line="coco: one annotation per connected part.",
    ),
]
Polygons = Annotated[
    bool,
    _option(
        OUTPUT,
        "--polygons",
        line="coco: polygons instead of run lengths.",
        more="Implies --parts. Parts with holes keep run lengths: COCO's polygons have none.",
    ),
]
ExportCutout = Annotated[
    Any,
    _option(
        OUTPUT,
        "--cutout",
        line="cutout: only these classes: person,dog.",
        more="Names or indices, after --map; all means every class but the background.",
        metavar="LIST|all",
        parser=values.classes,
    ),
]
ExportCrop = Annotated[
    Any,
    _option(
        OUTPUT,
        "--crop",
        line="cutout: cropped to their classes.",
        more="--crop=16 leaves a margin of 16 pixels.",
        metavar="[=MARGIN]",
        parser=values.whole(0, limits.LONGEST_SIDE, word="none"),
    ),
]
ExportBackground = Annotated[
    Any,
    _option(
        OUTPUT,
        "--background",
        line="cutout: on white or #rrggbb, not transparent.",
        metavar="COLOR",
        parser=values.color,
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
        help="Ground truth: masks, a Pascal VOC root, or COCO JSON.\n\n"
        "Masks have the images' names and sizes, and 255 as ignore label. A Pascal VOC root is "
        "VOCdevkit/VOC2012, or CVAT's segmentation masks; COCO's file is an instances_*.json.",
    ),
]
Predictions = Annotated[
    str | None,
    _option(
        INPUT,
        line="Evaluate these masks instead of a network.",
        more="An output directory, or index PNGs.",
        metavar="DIR",
        parser=values.local,
    ),
]
Split = Annotated[
    str | None,
    _option(
        INPUT,
        line="Split of a Pascal VOC root.",
        metavar="NAME",
        autocompletion=values.complete("train", "val", "trainval", "test"),
        show_default="val, or the only one",
    ),
]
TruthSuffix = Annotated[
    str,
    _option(
        INPUT,
        line="Suffix of ground truth files: _mask.",
        more="cat_mask.png (or another lossless format) then belongs to cat.jpg; _mask.tif means this "
        "format only.",
        metavar="TEXT",
        show_default="none",
    ),
]
TruthMap = Annotated[
    Any,
    _option(
        INPUT,
        line="What truth values mean: '1=person,2+3=cat,*=255'.",
        more="Left: values of masks, labels of a labelmap.txt or COCO categories. Right: a class, by "
        "name or index, or void (255). * is every other value but 255; without it the others "
        "stay.",
        metavar="MAP",
        parser=values.class_map,
    ),
]
IgnoreIndex = Annotated[
    list[int] | None,
    _option(
        INPUT,
        "--ignore-index",
        line="A further ignore label; repeatable.",
        more="255 always is one.",
        metavar="N",
        parser=values.whole(0, 65535),
    ),
]
LabelMapFile = Annotated[
    str | None,
    _option(
        INPUT,
        "--labelmap",
        line="CVAT's labelmap.txt: names and colours.",
        more="One in the truth's directory is found without this option.",
        metavar="FILE",
        parser=values.local,
    ),
]
TruthColorsOption = Annotated[
    TruthColors | None,
    _option(
        INPUT,
        line="Read pixels as voc (colours) or index.",
        more="index: class indices, even if the truth looks like a black-and-white mask or has a "
        "labelmap.txt.",
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
        more="original is the image's size; torchvision is the network's input size, as in "
        "torchvision's reference script.",
        metavar="NAME",
        parser=values.choice(Protocol),
        autocompletion=values.complete(*Protocol),
    ),
]
OrientationOption = Annotated[
    Orientation,
    _option(
        QUALITY,
        line="EXIF orientation: upright, stored or auto.",
        more="auto takes the one that fits the truth's size. If both fit, it is stored for COCO and "
        "--protocol torchvision, else upright.",
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
        more="IoU by class, the confusion matrix, and the images, worst first.",
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
    _option(RUNNING, line="Number of timed rounds.", metavar="N", parser=values.whole(1, limits.MOST_ROUNDS)),
]
Size = Annotated[
    Any,
    _option(
        QUALITY,
        line="Image size; it is not resized.",
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
        line="Download to DIR.",
        more="Copy it to the other machine's FCN_WEIGHTS_DIR.",
        metavar="DIR",
        parser=values.local,
    ),
]
