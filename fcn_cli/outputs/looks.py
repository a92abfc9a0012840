"""The look of outputs: colours, opacity, borders, legend, and the classes of cutouts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import ImageColor

from ..common import palettes
from ..common.class_names import class_name, find_class, hint_at_classes
from ..common.errors import RequestError
from ..common.label_map import VOID_INDEX
from ..common.palettes import Palette
from ..common.wording import counted

DEFAULT_OPACITY = 0.5
_ALL_BUT = "all classes but "


@dataclass(frozen=True)
class CutoutStyle:
    """How cutouts look.

    `classes` are those that are kept; None is all but `background_class`. With a `crop` the image is cut to
    the box of what is kept, with so many pixels around it. `background` is RGB; None is transparent.
    """

    classes: frozenset[int] | None = None
    crop: int | None = None
    background: tuple[int, int, int] | None = None
    background_class: int | None = 0

    def __str__(self) -> str:
        """Return how it stands in records."""
        parts = [
            self._classes(),
            f"crop {self.crop}" if self.crop is not None else "",
            f"background #{bytes(self.background).hex()}" if self.background is not None else "",
        ]
        return "; ".join(filter(None, parts))

    def _classes(self) -> str:
        if self.classes is not None:
            return f"classes {', '.join(map(str, sorted(self.classes)))}"
        if self.background_class == 0:
            return "all classes"
        return f"{_ALL_BUT}{'none' if self.background_class is None else self.background_class}"

    def keeps(self) -> frozenset[int]:
        """Return the indices of the classes that are kept; void is never one."""
        classes = frozenset(range(VOID_INDEX)) - {self.background_class}
        return (classes if self.classes is None else self.classes) - {VOID_INDEX}


@dataclass(frozen=True)
class Style:
    """How outputs look, with everything looked up; each writer takes what concerns its type.

    `palette_name` is the palette's name in records; for one from a file, the hash of its colours. `opacity`
    is that of the colours in an overlay, 0 to 1. `class_names` are for the legend; classes without a name are
    called ``class_<index>``. `legend_mark` stands for them in records, and is empty for the names that need
    no mark (see `LookRequest.resolve`). `background_class` is the class that is left as it is in an overlay,
    or None. `cutout` is for cutouts.
    """

    palette: Palette
    palette_name: str
    opacity: float = DEFAULT_OPACITY
    borders: bool = True
    legend: bool = False
    class_names: Sequence[str] = ()
    legend_mark: str = ""
    background_class: int | None = 0
    cutout: CutoutStyle = CutoutStyle()

    def color(self, index: int) -> tuple[int, int, int]:
        """Return the RGB colour of a label map value."""
        red, green, blue = self.palette[index].tolist()
        return red, green, blue


@dataclass(frozen=True)
class LookRequest:
    """How outputs shall look, as users ask for it.

    `palette` is a palette's name or a JSON file. `classes` are the names or indices of the classes that a
    cutout keeps; None is all but the background. The rest is as in `Style` and `CutoutStyle`.
    """

    palette: str = "hub"
    opacity: float = DEFAULT_OPACITY
    legend: bool = False
    classes: Sequence[str] | None = None
    crop: int | None = None
    background: tuple[int, int, int] | None = None

    def resolve(
        self,
        class_names: Sequence[str] | None,
        unmarked_names: Sequence[str] | None = None,
        background_class: int | None = 0,
    ) -> Style:
        """Look up the palette and the classes.

        Parameters
        ----------
        class_names
            The names of the network's classes; None where they are not known yet (`check` follows then).
        unmarked_names
            The names that a recorded legend has where its record does not say it; None is `class_names`.
        background_class
            The index of the class that is the background, or None.

        Raises
        ------
        RequestError
            There is no such palette or class, or the palette's file cannot be used.
        """
        colors = palettes.load(self.palette)
        name = self.palette if self.palette in palettes.BUILT_IN else _hash_of(colors.tobytes())
        kept = None if self.classes is None else find_classes(self.classes, class_names)
        names = tuple(class_names or ())
        mark = ""
        if unmarked_names is not None and names != tuple(unmarked_names):
            mark = hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
        return Style(
            colors,
            name,
            self.opacity,
            legend=self.legend,
            class_names=names,
            legend_mark=mark,
            cutout=CutoutStyle(kept, self.crop, self.background, background_class),
            background_class=background_class,
        )

    def check(self, class_names: Sequence[str]) -> None:
        """Check the request against the classes of the network, once it is loaded.

        Raises
        ------
        RequestError
            The palette has too few colours, or there is no such class.
        """
        palettes.load(self.palette, len(class_names))
        if self.classes is not None:
            find_classes(self.classes, class_names)


def read_color(text: str) -> tuple[int, int, int]:
    """Return the RGB of a colour as CSS names it, ``white`` or ``#ffffff``; ValueError where it is none."""
    color = ImageColor.getrgb(text)
    if len(color) != 3:
        raise ValueError(f"a colour with transparency: {text}")
    return color


def is_palette(name: str, colors: bytes) -> bool:
    """Say whether the RGB of 256 indices is the palette that has this name in records."""
    built_in = palettes.BUILT_IN.get(name)
    return built_in().tobytes() == colors if built_in is not None else _hash_of(colors) == name


def _hash_of(colors: bytes) -> str:
    return f"sha256:{hashlib.sha256(colors).hexdigest()[:16]}"


def find_classes(wanted: Sequence[str], class_names: Sequence[str] | None) -> frozenset[int]:
    """Return the indices of classes that are given by name or index; RequestError where one is none.

    Without known names, ``class_<index>`` is a name too.
    """
    names = class_names or [class_name((), index) for index in range(VOID_INDEX)]
    return frozenset(_find_class(text, names) for text in wanted)


def _find_class(text: str, names: Sequence[str]) -> int:
    index = find_class(text, names)
    if index is not None:
        return index
    if text.isascii() and text.isdigit() and len(text) <= 3:
        raise RequestError(
            f"--cutout {text}: the network has {counted(len(names), 'class', 'classes')}, from 0 to "
            f"{len(names) - 1}; 255 is never kept"
        )
    raise RequestError(f"--cutout {text}: no such class; {hint_at_classes(text, names)}")


def is_cropped(look: str | None) -> bool:
    """Say whether a cutout of a recorded look may be smaller than its image."""
    return look is not None and "; crop " in look


def describe_background(index: int | None) -> list[str]:
    """Return how a class that is the background stands among the parts of an overlay's look."""
    # The first class was the background of every network once, and is that of most.
    return [] if index == 0 else [f"background {'none' if index is None else index}"]


def cutout_shows(look: str, index: int) -> bool:
    """Say whether a cutout of this look keeps a class."""
    if index == VOID_INDEX:
        return False
    what = look.partition(";")[0]
    if what.startswith("classes "):
        return str(index) in what.removeprefix("classes ").split(", ")
    # Where nothing else is said, the first class is the background.
    return str(index) != (what.removeprefix(_ALL_BUT) if what.startswith(_ALL_BUT) else "0")
