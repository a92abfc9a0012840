"""The options of ``fcn evaluate`` that no other command has; see `options`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..evaluation.choices import Orientation, Protocol, TruthColors
from .option_values import choice, complete

Images = Annotated[str, typer.Argument(metavar="IMAGES", help="A directory of photos.")]
Truth = Annotated[
    str,
    typer.Argument(
        metavar="TRUTH",
        help="A directory of index PNGs (255 is void) with the photos' names, a Pascal VOC root "
        "(VOCdevkit/VOC2012), or a COCO instances_*.json. Each must have its photo's size.",
    ),
]
Predictions = Annotated[
    str | None,
    typer.Option(
        metavar="DIR", help="Measure these masks (an output directory, or index PNGs) instead of a network."
    ),
]
Split = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        autocompletion=complete("train", "val", "trainval", "test"),
        show_default="val",
        help="Which split of a Pascal VOC root.",
    ),
]
ProtocolOption = Annotated[
    Protocol,
    typer.Option(
        metavar="NAME",
        parser=choice(Protocol),
        autocompletion=complete(*Protocol),
        help="Compare at the photo's own size (original), or at the network's input size, as torchvision's "
        "reference script does.",
    ),
]
OrientationOption = Annotated[
    Orientation,
    typer.Option(
        metavar="NAME",
        parser=choice(Orientation),
        autocompletion=complete(*Orientation),
        help="How to compare photos that EXIF turns: upright, as stored, or the way that has the truth's "
        "size. Where both have it, auto is stored for COCO and --protocol torchvision, else upright.",
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
        "even if they look like a black-and-white mask.",
    ),
]
