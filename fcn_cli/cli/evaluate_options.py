"""The options that only ``fcn evaluate`` has; see `options` for the shared ones."""

from __future__ import annotations

from typing import Annotated

import typer

from ..evaluation.choices import Orientation, Protocol, TruthColors
from .input_options import not_a_file
from .option_values import choice, complete, local

Images = Annotated[str, typer.Argument(metavar="IMAGES", help="A directory of photos.")]
Truth = Annotated[
    str,
    typer.Argument(
        metavar="TRUTH",
        parser=local,
        help="A directory of index PNGs with the photos' names (255 is void), a Pascal VOC root "
        "(VOCdevkit/VOC2012), or a COCO instances_*.json. A label map must have its photo's size.",
    ),
]
Predictions = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        parser=local,
        help="Measure these masks (an output directory, or index PNGs) instead of a network.",
    ),
]
Split = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        autocompletion=complete("train", "val", "trainval", "test"),
        show_default="val",
        help="The split of a Pascal VOC root.",
    ),
]
ProtocolOption = Annotated[
    Protocol,
    typer.Option(
        metavar="NAME",
        parser=choice(Protocol),
        autocompletion=complete(*Protocol),
        help="original: compare at the photo's own size. torchvision: compare at the network's input size, "
        "as torchvision's reference script does.",
    ),
]


def _not_a_file(parameter: typer.CallbackParam, value: str | None) -> str | None:
    return None if value is None else not_a_file(parameter, value)


Report = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        callback=_not_a_file,
        parser=local,
        help="Write DIR/report.html (per-class bars, confusion matrix, the photos, worst first) and "
        "DIR/evaluation.json.",
    ),
]
OrientationOption = Annotated[
    Orientation,
    typer.Option(
        metavar="NAME",
        parser=choice(Orientation),
        autocompletion=complete(*Orientation),
        help="How to compare photos with an EXIF orientation: upright, stored, or auto (the orientation "
        "that has the truth's size; if both have it, stored for COCO and --protocol torchvision, else "
        "upright).",
    ),
]
TruthColorsOption = Annotated[
    TruthColors | None,
    typer.Option(
        metavar="NAME",
        parser=choice(TruthColors),
        autocompletion=complete(*TruthColors),
        show_default="class indices",
        help="voc: the truth's pixels are colours of Pascal VOC's palette. index: they are class indices, "
        "even if the truth looks like a black-and-white mask.",
    ),
]
